"""One run: a configuration at a workplace, with what its stages share; each is opened once, when it is first asked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.data.states import EncodedImages, GuidedStates, NoisedStates, States, TeacherMade
from agd_core.data.subjects import EncodedPrompts, Subjects
from agd_core.data.trajectory import CollectConfig
from agd_core.guidance import Guidance, GuidedDenoiser
from agd_core.models.model import BaseModel
from agd_core.models.schedulers import allowed_samplers, build_scheduler
from flows.config import PipelineConfig
from flows.instruments import Instruments, check_evaluation
from flows.prompts import load_prompts
from flows.real_images import RealImages, image_latents, open_real_images
from flows.workplace import Workplace


@dataclass(frozen=True)
class Run:
    """What every stage gets: its settings, where it works, and what it shares with the others."""

    config: PipelineConfig
    place: Workplace
    loaded: BaseModel | None = None
    """The base model, where it is open already."""

    @cached_property
    def model(self) -> BaseModel:
        """The base model."""
        return self.loaded or self.config.base_model.build(self.place.device)

    @cached_property
    def teacher(self) -> GuidedDenoiser:
        """The base model, guided."""
        return GuidedDenoiser(self.model, self.config.guidance)

    @property
    def rules(self) -> dict[str, Guidance]:
        """The teacher's rule and those that are compared with it, by their labels."""
        return {rule.label: rule for rule in (self.config.guidance, *self.config.training_free)}

    def guided(self, rule: Guidance) -> GuidedDenoiser:
        """The base model under a rule: the teacher's, or one that is compared with it."""
        return self.teacher if rule == self.config.guidance else GuidedDenoiser(self.model, rule)

    @cached_property
    def states(self) -> States:
        """Where the teacher is asked; see `States.prepare`."""
        if self.config.collect.states == "guided":
            return GuidedStates(self.teacher)
        if images := self.real_images:
            return NoisedStates(self.teacher, EncodedImages(images.choice(self.collect.seed), self._encoded_images))
        return NoisedStates(self.teacher, TeacherMade(self.teacher))

    @cached_property
    def real_images(self) -> RealImages | None:
        """The images that are noised, where they are the user's own; errors as `open_real_images`."""
        return open_real_images(self.config.collect, self.model) if self.config.collect.images else None

    @cached_property
    def collected(self) -> Subjects:
        """What trajectories are collected of.

        Raises:
            InputError: prompts are missing, cannot be read, or are given to a model with classes.
        """
        return Subjects.of(self.model, self._prompts[0], "collect.prompts", self._encoded, self._negative)

    @cached_property
    def sampled(self) -> Subjects:
        """What images are sampled of; errors as in `collected`."""
        return Subjects.of(self.model, self._prompts[1], "sample.prompts", self._encoded, self._negative)

    @cached_property
    def collect(self) -> CollectConfig:
        """Settings of stage 1, the number of trajectories decided from what the longest training will read."""
        return self.config.collect.sized(self.config.most_pairs_read, len(self.collected))

    @cached_property
    def instruments(self) -> Instruments:
        """What sample sets are measured with; errors as `Instruments.open`."""
        return Instruments.open(self.config.evaluate, self.model, self.place)

    @cached_property
    def _prompts(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The prompts to collect and those to sample, read once."""
        collect, sample = (
            load_prompts(section.prompts, section.prompt_count, f"{name}.prompts") if section.prompts else ()
            for name, section in (("collect", self.config.collect), ("sample", self.config.sample))
        )
        return self.real_images.prompts if self.real_images else collect, sample

    @property
    def _negative(self) -> str | None:
        return self.config.collect.negative_prompt

    @cached_property
    def _encoded(self) -> EncodedPrompts:
        return EncodedPrompts(self.model, [prompt for prompts in self._prompts for prompt in prompts])

    def _encoded_images(self) -> Mapping[int, Tensor]:
        """Latents of the real images that the trajectories are made of."""
        images = self.real_images
        return image_latents(images, images.chosen(self.collect), self.model, self.place) if images else {}

    def check(self) -> Self:
        """Refuse what cannot work with the base model, before any long work.

        Raises:
            InputError: the model cannot be loaded, the extractor does not know its classes, or a setting exceeds it.
        """
        check_evaluation(self.config.evaluate, self.model)
        negative = () if self._negative is None else (self._negative,)
        asked = {"collect.prompts": self.collected.prompts, "sample.prompts": self.sampled.prompts}
        for setting, prompts in (asked | {"collect.negative_prompt": negative}).items():
            if cut := self.model.cut_prompts(prompts):
                same = f"; {cut.equal} became equal to another one" if cut.equal else ""
                self.place.announce(
                    f"{setting}: {cut.cut} of {len(prompts)} prompts are cut, for a text encoder reads "
                    f"{cut.most_tokens} tokens{same}"
                )
        for rule in self.rules.values():
            rule.check(self.model)
        self._check_states()
        for method in self.config.methods:
            method.check(self.model.backbone)
        self._check_samplers()
        return self

    def _check_states(self) -> None:
        """The teacher can be asked at noised images, and there are images of what it is asked for."""
        rule = self.config.guidance
        if self.config.collect.states == "noised" and rule.follows_sampler:
            raise InputError(
                f"collect.states noised: the rule {rule.kind!r} depends on a sampler's steps before, so it cannot be "
                "asked at a noised image; allowed: states guided, or guidance by another rule"
            )
        if self.real_images:
            self.real_images.check(self.model)

    def _check_samplers(self) -> None:
        """Every sampler can walk what the base model predicts, in so many steps."""
        config, scheduler = self.config, self.model.scheduler_config
        allowed = allowed_samplers(scheduler)
        for setting, name in _samplers(config):
            if name not in allowed:
                raise InputError(
                    f"{setting} {name!r} cannot walk a model that predicts {self.model.prediction_type}; allowed: "
                    f"{', '.join(allowed)}"
                )
            build_scheduler(name, scheduler, 2)
        limit = scheduler.get("num_train_timesteps", 1000)
        steps = max(config.collect.steps, config.sample.steps, *config.sample.curve_steps)
        if steps > limit:
            raise InputError(f"{steps} sampler steps exceed the {limit} timesteps that the base model was trained with")


def _samplers(config: PipelineConfig) -> Iterator[tuple[str, str]]:
    """Every sampler that is named, after its setting."""
    yield "collect.scheduler", config.collect.scheduler
    yield "sample.scheduler", config.sample.scheduler
    for number, name in enumerate(config.sample.sweep_schedulers):
        yield f"sample.sweep_schedulers.{number}", name
