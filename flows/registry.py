"""The adapters that are evaluated every night: one JSON file per adapter below OUTPUT/registry/."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from agd_core.basics.atomic import write_bytes
from agd_core.basics.config import Config
from agd_core.basics.config_problems import first_problem
from agd_core.basics.errors import InputError
from agd_core.basics.home import expand
from agd_core.basics.safe_files import confined, printable, read_json
from agd_core.data.trajectory import CollectConfig
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.protocol import in_words
from agd_core.evaluation.sampling import SampleConfig
from agd_core.guidance import GuidanceConfig, SparingConfig
from agd_core.methods.adapter_files import open_adapter, read_card
from agd_core.models.config import BaseModelConfig
from agd_core.models.model import BaseModel
from flows.config import PipelineConfig
from flows.presets import load_config
from flows.run import Run
from flows.workplace import Workplace

REGISTRY = "registry"
_NAME = r"[A-Za-z0-9][A-Za-z0-9-]{0,63}"
_SUFFIX = ".json"


class Entry(Config):
    """A registered adapter and how it is sampled and scored, every night in the same way."""

    name: Annotated[str, Field(pattern=f"^{_NAME}$")]
    """What its nights are listed under."""
    folder: str
    """Absolute path of the folder with adapter.safetensors and adapter.json, read anew every night."""
    preset: str
    """Where the settings below come from, for people to read."""
    overrides: tuple[str, ...]
    """What was changed in the preset, for people to read."""
    base_model: BaseModelConfig
    guidance: GuidanceConfig
    negative_prompt: str | None = None
    """Of the teacher."""
    training_free: tuple[SparingConfig, ...] = Field((), exclude_if=lambda rules: not rules)
    """Rules that are sampled and scored beside the teacher's."""
    sample: SampleConfig
    """With one guidance scale, the preset's headline; the seed of a night is derived from the seed here."""
    evaluate: EvaluateConfig
    pipeline_digest: str
    """Identity of the base model with its decoder and noise schedule."""
    registered_at: str
    """ISO date and time, UTC."""

    @property
    def guidance_scale(self) -> float:
        """Of the student, and of the teacher that it is compared with."""
        return self.sample.guidance_scale

    def run(self, place: Workplace) -> Run:
        """With the base model, after making sure that the adapter can be evaluated on it.

        Raises:
            InputError: it is not the registered one, or see `check_adapter`.
        """
        sample = self.sample
        collect = CollectConfig(  # nothing is collected: what the checks ask for is what is sampled
            prompts=sample.prompts,
            prompt_count=sample.prompt_count,
            scheduler=sample.scheduler,
            steps=sample.steps,
            negative_prompt=self.negative_prompt,
        )
        config = PipelineConfig(
            base_model=self.base_model,
            guidance=self.guidance,
            training_free=self.training_free,
            collect=collect,
            sample=sample,
            evaluate=self.evaluate,
        )
        run = Run(config, place).check()
        if run.model.pipeline_digest() != self.pipeline_digest:
            raise InputError(f"base model {self.base_model.source} is not the one that {self.name!r} was registered on")
        check_adapter(Path(self.folder), config, run.model)
        return run


def check_adapter(folder: Path, config: PipelineConfig, base_model: BaseModel) -> None:
    """Refuse an adapter that cannot be sampled with.

    Raises:
        InputError: no adapter there, one of another base model, of another guidance rule than the teacher's, or a
            guidance scale that it was not trained for.
    """
    open_adapter(base_model, folder)
    card, guidance_scale = read_card(folder)[1], config.sample.guidance_scales[0]
    if card.guidance != (rule := config.teacher_identity):
        raise InputError(
            f"adapter {printable(folder)} has learnt the guidance rule {printable(in_words(card.guidance))}, the "
            f"teacher guides by {in_words(rule)}; choose the adapter's with --set guidance.SETTING=VALUE, a "
            "negative prompt with --set collect.negative_prompt=TEXT"
        )
    low, high = card.guidance_range
    if not low <= guidance_scale <= high:
        raise InputError(
            f"guidance scale {guidance_scale:g} is outside the range {low:g} to {high:g} that adapter {folder} was "
            "trained on; choose another one with --set sample.guidance_scales=[...]"
        )


def register(folder: Path, name: str, preset: str, overrides: Sequence[str], place: Workplace) -> Entry:
    """Add an adapter to those that are evaluated every night.

    Raises:
        InputError: the name cannot be used, the settings are no configuration, or see `check_adapter`.
    """
    path = _path(place.output, name)
    if path.exists():
        raise InputError(f"adapter {name!r} is registered already; agd adapters --remove {name} takes it out")
    config = load_config(preset, ["sample.curve_steps=[]", *overrides])
    base_model = Run(config, place).check().model
    check_adapter(folder, config, base_model)
    headline = {"guidance_scales": config.sample.guidance_scales[:1], "curve_steps": ()}
    entry = Entry(
        name=name,
        folder=str(folder.resolve()),
        preset=preset,
        overrides=tuple(overrides),
        base_model=_from_everywhere(config.base_model),
        guidance=config.guidance,
        negative_prompt=config.collect.negative_prompt,
        training_free=config.training_free,
        sample=config.sample.model_copy(update=headline),
        evaluate=config.evaluate,
        pipeline_digest=base_model.pipeline_digest(),
        registered_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_bytes((entry.model_dump_json(indent=2) + "\n").encode(), path)
    return entry


def registered(output: Path) -> tuple[list[Entry], list[str]]:
    """Every registered adapter by name, and one line per file that is none."""
    entries, problems = [], []
    for path in sorted(confined(output, REGISTRY).glob(f"*{_SUFFIX}")):
        try:
            entries.append(_read(path))
        except InputError as error:
            problems.append(str(error))
    return entries, problems


def find(output: Path, name: str) -> Entry:
    """One registered adapter.

    Raises:
        InputError: none of that name, or its file is damaged.
    """
    return _read(_existing(output, name))


def remove(output: Path, name: str) -> None:
    """Take an adapter out; its history stays.

    Raises:
        InputError: none of that name.
    """
    _existing(output, name).unlink()


def _read(path: Path) -> Entry:
    try:
        entry = Entry.model_validate(read_json(confined(path.parent, path.name)))
    except ValidationError as error:
        raise InputError(f"{path} is no registered adapter: {first_problem(error, Entry)}") from error
    if entry.name != path.stem:
        raise InputError(f"{path} is no registered adapter: it names {entry.name!r}")
    return entry


def _existing(output: Path, name: str) -> Path:
    if not (path := _path(output, name)).is_file():
        known = sorted(path.stem for path in (output / REGISTRY).glob(f"*{_SUFFIX}"))
        raise InputError(f"no adapter {name!r} in {output / REGISTRY}; registered: {', '.join(known) or 'none'}")
    return path


def _path(output: Path, name: str) -> Path:
    if not re.fullmatch(_NAME, name):
        raise InputError(f"adapter name {name!r} must be 1 to 64 letters, digits and dashes, no dash first")
    return confined(output, f"{REGISTRY}/{name}{_SUFFIX}")


def _from_everywhere(base_model: BaseModelConfig) -> BaseModelConfig:
    """A local folder as an absolute path: nights may start in another folder."""
    folder = expand(base_model.source)
    return base_model.model_copy(update={"source": str(folder.resolve())}) if folder.is_dir() else base_model
