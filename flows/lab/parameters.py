"""What a person fills in on Prefect's form: a preset, and a section per stage, where a blank is "as in the preset".

Prefect's form cannot switch a discriminated union, so what it shows is plain sections and drop-downs; the union of
adapter kinds is built from them by `flows.presets`, as on the command line.
"""

import json
from enum import StrEnum
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_serializer
from pydantic.fields import FieldInfo

from agd_core.adapters import AnyAdapterConfig
from agd_core.base_models import BaseModelConfig
from agd_core.config import Strict
from agd_core.metrics import EvaluateConfig
from agd_core.sampling import SampleConfig
from agd_core.trainer import TrainConfig
from agd_core.trajectory import CollectConfig
from flows.config import PipelineConfig, StoreConfig
from flows.lab.confines import own_folder
from flows.preset_files import preset_names
from flows.presets import load_config

Preset = StrEnum("Preset", {name: name for name in preset_names()})  # type: ignore[misc]
AdapterKind = StrEnum(  # type: ignore[misc]
    "AdapterKind",
    {kind: kind for kind in (model.model_fields["kind"].default for model in get_args(get_args(AnyAdapterConfig)[0]))},
)


def _blank(field: FieldInfo) -> FieldInfo:
    """The same field with no default, shown as one plain input instead of tabs for its type and null."""
    return FieldInfo.merge_field_infos(field, default=None, json_schema_extra=_plain)


def _plain(schema: dict[str, Any]) -> None:
    """Drop null from a field's JSON schema; Prefect's server takes null for every field without a default."""
    schema.pop("default", None)
    kinds = [kind for kind in schema.pop("anyOf", []) if kind.get("type") != "null"]
    schema.update(*kinds[:1])


class Section(BaseModel):
    """A box of the form; what is left blank is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_serializer(mode="wrap")
    def _filled_in(self, handler: Any) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class StageSection(Section, Strict):
    """A box with settings of a stage, as strict about types as they are."""


def section_of(config: type[BaseModel]) -> type[StageSection]:
    """A section with the fields of a stage's configuration, every one of which may stay blank."""
    fields: Any = {name: (field.annotation | None, _blank(field)) for name, field in config.model_fields.items()}  # type: ignore[operator]
    return create_model(f"{config.__name__}Fields", __base__=StageSection, **fields)


class BaseModelSection(section_of(BaseModelConfig)):  # type: ignore[misc]
    """Another model. Blank: as in the preset."""

    model_config = ConfigDict(title="Base model")


class CollectSection(section_of(CollectConfig)):  # type: ignore[misc]
    """Stage 1, guided trajectories. Blank: as in the preset."""

    model_config = ConfigDict(title="Collect")


class StoreSection(section_of(StoreConfig)):  # type: ignore[misc]
    """Where trajectories are kept. Blank: as in the preset."""

    model_config = ConfigDict(title="Store")


class TrainSection(section_of(TrainConfig)):  # type: ignore[misc]
    """Stage 2, the same for every adapter. Blank: as in the preset."""

    model_config = ConfigDict(title="Train")


class SampleSection(section_of(SampleConfig)):  # type: ignore[misc]
    """Stage 3, the images. Blank: as in the preset."""

    model_config = ConfigDict(title="Sample")


class EvaluateSection(section_of(EvaluateConfig)):  # type: ignore[misc]
    """Stage 4, what is measured on them. Blank: as in the preset."""

    model_config = ConfigDict(title="Evaluate")


class FanOut(Section):
    """Who does units of collection and cells of sampling. Results do not depend on it."""

    model_config = ConfigDict(title="Fan out")

    runner: Literal["threads", "dask", "ray"] = "threads"
    """threads: this process; dask, ray: other processes, each with its own copy of the model."""
    workers: int = Field(1, ge=1, le=64)
    """How many at a time; one GPU is used best by one."""
    address: str = ""
    """Of a running Dask scheduler or Ray cluster; blank starts one on this machine."""

    @property
    def elsewhere(self) -> bool:
        """Whether work goes to other processes."""
        return self.runner != "threads"


class CollectSettings(Section):
    """What to collect."""

    preset: Preset = Preset("fashion-dit")
    """Where every setting starts from."""
    config_file: str | None = Field(None, json_schema_extra=_plain)
    """A .yaml file in a folder of the lab, instead of the preset."""
    output: str = "outputs"
    """Folder for artefacts and report, below the one where `agd up` was started or one that `--folder` named."""
    overrides: list[str] = []
    """Further changes such as guidance.guided_channels=3 or adapters.0.hidden_width=32."""
    base_model: BaseModelSection = BaseModelSection()
    collect: CollectSection = CollectSection()
    store: StoreSection = StoreSection()
    fan_out: FanOut = FanOut()

    @field_validator("output")
    @classmethod
    def _a_folder(cls, output: str) -> str:
        if not output.strip():
            raise ValueError("an output folder is needed")
        return output

    @property
    def source(self) -> str:
        """The preset's name, or the file that replaces it.

        Raises:
            InputError: the file lies outside of the lab's folders.
        """
        return str(own_folder(self.config_file, "config_file")) if self.config_file else self.preset.value

    def changes(self) -> list[str]:
        """Everything filled in as `section.setting=value`, in the words of `agd --set`."""
        filled = self.model_dump(mode="json", include=set(PipelineConfig.model_fields) - {"adapters"})
        sections = [f"{name}.{key}={json.dumps(value)}" for name, box in filled.items() for key, value in box.items()]
        return [*sections, *self.overrides]

    def config(self) -> PipelineConfig:
        """The checked configuration.

        Raises:
            InputError: the first problem, with the dotted name of the setting.
        """
        return load_config(self.source, self.changes())


class TrainSettings(CollectSettings):
    """What to collect and train."""

    adapters: list[AdapterKind] = []
    """Adapters to train, of these kinds with their default widths; none: the preset's."""
    train: TrainSection = TrainSection()

    def changes(self) -> list[str]:
        """Kinds of adapters as one more change."""
        kinds = [f"{{kind: {kind.value}}}" for kind in self.adapters]
        return [*([f"adapters=[{', '.join(kinds)}]"] if kinds else []), *super().changes()]


class SampleSettings(TrainSettings):
    """What to collect, train and sample."""

    sample: SampleSection = SampleSection()


class DistillSettings(SampleSettings):
    """The whole pipeline."""

    evaluate: EvaluateSection = EvaluateSection()
