"""Guidance: turns a bare model into a teacher that is itself a `Denoiser`.

A rule names the predictions that it needs, its passes, and combines their answers.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from operator import attrgetter
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from agd_core.basics.config import Config
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Answer, Denoiser, Latents, PerRow, Prediction
from agd_core.models.model import BaseModel
from agd_core.models.schedulers import noise_level

Answers = Mapping[str, Tensor]
"""What each pass predicted, by its name: `[batch, channels, ...]`, as many channels as a latent has."""
Rows = Bool[Tensor, " batch"]
Remembered = dict[str, Tensor]
"""What a rule keeps from step to step of one sampler's run, by names of its own, each `[batch, ...]`."""
_ALL = slice(None)


@dataclass(frozen=True)
class Pass:
    """One prediction that a rule needs. Passes of the same model and hooks are evaluated in one batch."""

    name: str
    condition: Callable[[Ask], Condition]
    """What the network is conditioned on."""
    model: BaseModel | None = None
    """Another network, such as a weaker one; None: the one that is guided."""
    hooks: Callable[[nn.Module], AbstractContextManager[Any]] | None = None
    """Perturbs the network inside the block, and leaves nothing of it behind."""


CONDITIONAL = Pass("conditional", attrgetter("condition"))
UNCONDITIONAL = Pass("unconditional", attrgetter("null"))


@dataclass(frozen=True)
class GuidanceCall:
    """What a rule may know of the predictions that are asked for."""

    guidance_scale: PerRow
    timestep: PerRow
    """What the network is handed."""
    scheduler_config: Mapping[str, Any]
    """Of the noise schedule that the model was trained with."""
    step: int = 0
    """Which of the sampler's steps it is, from 0; all rows are at the same."""
    steps: int = 1
    """How many the sampler makes: a prediction by itself is the only one."""
    memory: Remembered = field(default_factory=dict)
    """Of this run of the sampler, whose steps come in their order; empty at the first."""

    @cached_property
    def noise_level(self) -> PerRow:
        """See `agd_core.models.schedulers.noise_level`."""
        return noise_level(self.scheduler_config, self.timestep)


class Guidance(Config, ABC):
    """A rule with its settings. One that uses another network names its weights in `identity`, too."""

    kind: str
    follows_sampler: ClassVar[bool] = False
    """Whether a prediction depends on the sampler's steps before, so that it cannot be asked for by itself."""

    @property
    def label(self) -> str:
        """What tables and plots call a teacher under this rule."""
        return self.kind

    def teacher_identity(self, negative_prompt: str | None) -> dict[str, Any]:
        """What tells a model under this rule from other teachers, as plain data.

        Args:
            negative_prompt: the null condition, where it is not the model's own "no prompt".
        """
        return self.identity() | ({} if negative_prompt is None else {"negative_prompt": negative_prompt})

    @abstractmethod
    def passes(self, model: BaseModel) -> tuple[Pass, ...]:
        """The predictions that the rule needs, `CONDITIONAL` first; each costs one network evaluation per row."""

    def rows(self, one: Pass, call: GuidanceCall) -> Rows | None:
        """The rows in which the rule needs this pass (None: in all); in the others it answers as `CONDITIONAL` does."""
        return None

    @abstractmethod
    def combine(self, answers: Answers, call: GuidanceCall) -> Latents:
        """The guided prediction; at `guidance_scale == 1` it must equal the conditional one.

        The answers are left alone.
        """

    def everywhere(self) -> "Guidance":
        """A rule that needs in every row all the passes that this one ever needs: what takes the most memory."""
        return self

    def check(self, model: BaseModel) -> None:
        """Refuse settings that this model cannot follow.

        Raises:
            InputError: names the setting.
        """


class GuidedDenoiser(Denoiser):
    """A base model under guidance; the rows of every pass are counted, whichever network evaluates it."""

    network_evaluations: int = 0

    def __init__(self, base_model: BaseModel, guidance: Guidance) -> None:
        self.base_model, self.guidance = base_model, guidance
        self._passes = guidance.passes(base_model)

    def predict(self, latents: Latents, timestep: PerRow, ask: Ask) -> Prediction:
        """The guided prediction, one guidance scale per row.

        The rule guides as many channels as a latent has; a learned variance behind them is the conditional one, as in
        DiT's `forward_with_cfg` (https://github.com/facebookresearch/DiT, models.py).
        """
        return self._guided(latents, ask, self._call(timestep, ask))

    def steps(self, timesteps: Float[Tensor, " steps"], ask: Ask) -> Iterator[Answer]:
        """The same for a sampler's steps; the rule knows which it is at, and what it kept of those before."""
        for call in self._calls(timesteps, ask):
            yield partial(self._guided, ask=ask, call=call)

    def evaluations(self, timesteps: Float[Tensor, " steps"], ask: Ask) -> list[int]:
        """How many rows the networks would evaluate at each of a sampler's steps, without making them."""
        counts = []
        for call in self._calls(timesteps, ask):
            rows = [self.guidance.rows(one, call) for one in self._passes]
            counts.append(sum(len(ask) if mine is None else int(mine.sum()) for mine in rows))
        return counts

    def _call(self, timestep: PerRow, ask: Ask) -> GuidanceCall:
        return GuidanceCall(ask.guidance_scale, timestep, self.base_model.scheduler_config)

    def _calls(self, timesteps: Float[Tensor, " steps"], ask: Ask) -> Iterator[GuidanceCall]:
        """Of one run of a sampler."""
        memory: Remembered = {}
        for step, timestep in enumerate(timesteps):
            call = self._call(timestep.expand(len(ask)), ask)
            yield replace(call, step=step, steps=len(timesteps), memory=memory)

    @torch.no_grad()
    def _guided(self, latents: Latents, ask: Ask, call: GuidanceCall) -> Prediction:
        answers = self._answers(latents, ask, call)
        channels, conditional = latents.shape[1], answers[CONDITIONAL.name]
        guided = self.guidance.combine({name: answer[:, :channels] for name, answer in answers.items()}, call)
        return torch.cat([guided, conditional[:, channels:]], dim=1)

    def _answers(self, latents: Latents, ask: Ask, call: GuidanceCall) -> dict[str, Tensor]:
        """What every pass predicts in all rows, a learned variance included."""
        rows = {one.name: self.guidance.rows(one, call) for one in self._passes}
        needed = [one for one in self._passes if (mine := rows[one.name]) is None or bool(mine.any())]
        parts: dict[str, Tensor] = {}
        for together in _batches(needed):
            parts |= self._evaluated(together, rows, latents, ask, call)
        return {name: _whole(parts.get(name), mine, parts[CONDITIONAL.name]) for name, mine in rows.items()}

    def _evaluated(
        self, passes: Sequence[Pass], rows: Mapping[str, Rows | None], latents: Latents, ask: Ask, call: GuidanceCall
    ) -> dict[str, Tensor]:
        """What passes of one model and hooks predict, each in its own rows."""
        chosen = [_ALL if (mine := rows[one.name]) is None else mine for one in passes]
        model, hooks = passes[0].model or self.base_model, passes[0].hooks
        asked = [one.condition(ask)[mine] for one, mine in zip(passes, chosen, strict=True)]
        with hooks(model.network) if hooks else nullcontext():
            predicted = model.predict(
                torch.cat([latents[mine] for mine in chosen]),
                torch.cat([call.timestep[mine] for mine in chosen]),
                Ask.unguided(Condition.cat(asked)),
            )
        self.network_evaluations += len(predicted)
        parts = torch.split(predicted, [len(each) for each in asked])
        return {one.name: part for one, part in zip(passes, parts, strict=True)}


def _batches(passes: Sequence[Pass]) -> Iterable[list[Pass]]:
    """Passes of one model and hooks together, in their order."""
    batches: dict[object, list[Pass]] = {}
    for one in passes:
        batches.setdefault((one.model, one.hooks), []).append(one)
    return batches.values()


def _whole(part: Tensor | None, rows: Rows | None, conditional: Tensor) -> Tensor:
    """A pass's answer in all rows: the conditional one where the pass was not needed."""
    if part is None or rows is None:
        return conditional if part is None else part
    whole = conditional.clone()
    whole[rows] = part
    return whole
