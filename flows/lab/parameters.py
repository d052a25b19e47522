"""What a person fills in on Prefect's form: a preset, and a section per stage, where a blank is "as in the preset".

Prefect's form cannot switch a discriminated union, so what it shows is plain sections and drop-downs; the union of
method kinds is built from them by `flows.presets`, as on the command line.
"""

import json
from enum import StrEnum
from functools import cache
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_serializer
from pydantic.fields import FieldInfo

from agd_core.basics.config import Strict
from agd_core.methods import AnyMethodConfig
from flows.config import PipelineConfig
from flows.jobs import JOBS, Job
from flows.lab.confines import own_folder
from flows.preset_files import preset_names
from flows.presets import load_config

Preset = StrEnum("Preset", {name: name for name in preset_names()})  # type: ignore[misc]
MethodKind = StrEnum(  # type: ignore[misc]
    "MethodKind",
    {kind: kind for kind in (model.model_fields["kind"].default for model in get_args(get_args(AnyMethodConfig)[0]))},
)
_BLANK = "Blank: as in the preset."
_NO_SOURCE = {"use_attribute_docstrings": False}
"""For classes that stand in no file: pydantic would look for their text among all modules, for a second."""


def _blank(field: FieldInfo) -> FieldInfo:
    """The same field with no default, shown as one plain input instead of tabs for its type and null."""
    return FieldInfo(default=None, description=field.description, json_schema_extra=_plain)


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


class Settings(Section):
    """What every form has; a job's sections follow."""

    preset: Preset = Preset("fashion-dit")
    """Where every setting starts from."""
    config_file: str | None = Field(None, json_schema_extra=_plain)
    """A .yaml file in a folder of the lab, instead of the preset."""
    output: str = "outputs"
    """Folder for artefacts and report, below the one where `agd up` was started or one that `--folder` named."""
    overrides: list[str] = []
    """Further changes such as guidance.guided_channels=3 or methods.0.hidden_width=32."""
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

    def filled(self) -> dict[str, Any]:
        """What is filled in, by section, as a preset holds it."""
        boxes = self.model_dump(include=set(PipelineConfig.model_fields) - {"methods"})
        kinds = [{"kind": kind.value} for kind in getattr(self, "methods", ())]
        return ({"methods": kinds} if kinds else {}) | {name: box for name, box in boxes.items() if box}

    def config(self) -> PipelineConfig:
        """The checked configuration.

        Raises:
            InputError: the first problem, with the dotted name of the setting.
        """
        return load_config(self.source, self.overrides, self.filled())

    def changes(self) -> list[str]:
        """Everything filled in, in the words of `agd --set`, for the command that repeats a run."""
        filled = self.filled()
        kinds = [f"{{kind: {method['kind']}}}" for method in filled.pop("methods", ())]
        sections = [f"{name}.{key}={json.dumps(value)}" for name, box in filled.items() for key, value in box.items()]
        return [*([f"methods=[{', '.join(kinds)}]"] if kinds else []), *sections, *self.overrides]


@cache
def form_of(job: Job) -> type[Settings]:
    """The form of a job, one class however often it is asked for: what every form has, and the job's sections."""
    fields: Any = {name: _section(name) for name in job.sections}
    return create_model(
        f"{job.name.title()}Settings",
        __base__=Settings,
        __module__=__name__,
        __doc__=job.help,
        __cls_kwargs__=_NO_SOURCE,
        **fields,
    )


@cache
def _section(name: str) -> tuple[Any, Any]:
    """Type and default of a section: every setting that the configuration has there, each of which may stay blank."""
    said = PipelineConfig.model_fields[name].description
    if name == "methods":
        text = "Methods to train, of these kinds with their defaults; none: the preset's."
        return list[MethodKind], Field([], description=text)
    config: Any = PipelineConfig.model_fields[name].annotation
    fields: Any = {
        key: (field.rebuild_annotation() | None, _blank(field)) for key, field in config.model_fields.items()
    }
    title = name.replace("_", " ").capitalize()
    box = create_model(
        f"{name.title().replace('_', '')}Section",
        __base__=StageSection,
        __doc__=f"{said} {_BLANK}",
        __cls_kwargs__={"title": title} | _NO_SOURCE,
        **fields,
    )
    return box, box()


for _job in JOBS:  # other processes find a form by its name
    globals()[form_of(_job).__name__] = form_of(_job)
