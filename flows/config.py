"""One configuration for the whole pipeline: a section per stage."""

from collections import Counter
from typing import Any, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from agd_core.basics.config import Config
from agd_core.basics.home import expand
from agd_core.data.trajectory import CollectConfig
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.sampling import SampleConfig
from agd_core.guidance import ClassifierFreeGuidance, GuidanceConfig, SparingConfig
from agd_core.methods import AnyMethodConfig, MethodConfig, ModulatedMlpConfig
from agd_core.methods.own_training import TrainingSeed
from agd_core.methods.trainer import TrainConfig
from agd_core.models.config import BaseModelConfig


class StoreConfig(Config):
    """Where trajectories are kept; no part of what they are."""

    url: str | None = None
    """A folder, or a place that fsspec knows such as s3://bucket/prefix; none keeps them with the other artefacts."""

    @field_validator("url")
    @classmethod
    def _absolute(cls, url: str | None) -> str | None:
        """A folder as an absolute path, so that it is the same place from everywhere."""
        if url is None:
            return None
        protocol, separator, path = url.rpartition("://")
        if separator and not path.strip("/"):
            raise ValueError(f"{url} names no place behind {protocol}://")
        return url if separator and protocol != "file" else str(expand(path).resolve())


class ShootoutConfig(Config):
    """What `agd shootout` adds to a run."""

    seeds: tuple[TrainingSeed, ...] = Field((0, 1, 2), min_length=1, max_length=100)
    """Of the trainings, in place of `train.seed`: initial weights and order of pairs. The images' noise stays."""

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds must differ from each other, got {', '.join(map(str, seeds))}")
        return seeds


class PipelineConfig(Config):
    """Everything that one distillation needs; presets are files of this shape."""

    base_model: BaseModelConfig = BaseModelConfig()
    """The model to distil."""
    guidance: GuidanceConfig = ClassifierFreeGuidance()
    """The rule that makes it a teacher."""
    collect: CollectConfig = CollectConfig()
    """Stage 1: guided trajectories."""
    store: StoreConfig = StoreConfig()
    """Where stage 1 keeps them."""
    methods: tuple[AnyMethodConfig, ...] = Field((ModulatedMlpConfig(),), min_length=1)
    """What to train and compare, each with its own settings."""
    training_free: tuple[SparingConfig, ...] = Field((), exclude_if=lambda rules: not rules)
    """Rules that spare passes and need no training, compared beside the methods; without a `rule`, the teacher's."""
    train: TrainConfig = TrainConfig()
    """Stage 2, the same for every method that does not say otherwise."""
    sample: SampleConfig = SampleConfig()
    """Stage 3: images without guidance, with guidance, and of every student."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Stage 4: what is measured on them."""
    shootout: ShootoutConfig = Field(ShootoutConfig(), exclude_if=lambda contest: contest == ShootoutConfig())
    """How often `agd shootout` trains every method."""

    @property
    def teacher_identity(self) -> dict[str, Any]:
        """What makes the base model a teacher, see `Guidance.teacher_identity`."""
        return self.guidance.teacher_identity(self.collect.negative_prompt)

    def training_of(self, method: MethodConfig) -> TrainConfig:
        """Stage 2 of one method."""
        return self.train.changed(method.train)

    @property
    def most_pairs_read(self) -> int:
        """How many stored pairs the longest training reads."""
        return max(self.training_of(method).pairs_read for method in self.methods)

    @field_validator("training_free", mode="before")
    @classmethod
    def _of_the_teacher(cls, rules: Any, info: ValidationInfo) -> Any:
        """Complete those that name no rule to spare."""
        teacher = info.data.get("guidance")
        if teacher is None or not isinstance(rules, list | tuple):
            return rules
        spared = {"rule": teacher.everywhere()}
        return tuple(spared | rule if isinstance(rule, dict) else rule for rule in rules)

    @model_validator(mode="after")
    def _check(self) -> Self:
        labels = [method.label for method in self.methods]
        if len(set(labels)) < len(labels):
            raise ValueError(f"methods need different names, got {', '.join(labels)}")
        self._check_rules()
        return self

    def _check_rules(self) -> None:
        rules = Counter(rule.label for rule in (self.guidance, *self.training_free))
        if twice := [label for label, count in rules.items() if count > 1]:
            raise ValueError(f"training_free needs rules unlike each other and guidance, got {twice[0]} twice")
