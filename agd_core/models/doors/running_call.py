"""The pipeline call that is running now, read from the Python stack; nothing of it is changed.

A network's hook sees what the network is called with. What the user asked the pipeline for (the guidance scale of
pipelines that hand none to their network, a negative prompt) is in the call above it, and how far it has come.
"""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import CodeType, FrameType
from typing import Any

from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.models.doors.null_prompt import says_only

_NEGATIVE = "negative_"
_FURTHER = "_23"
"""Ends the names of what further text encoders are given."""
_OFF: Mapping[str, Any] = {"guidance_rescale": 0, "skip_guidance_layers": None, "pag_scale": 0, "guess_mode": False}
"""Arguments that change how the two halves of CFG are joined, and the value at which they do nothing."""
_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
FOR_CFG = "agd_core.set_enabled(pipe, False) turns the adapter off for CFG"


@dataclass(frozen=True)
class RunningCall:
    """A call of one of diffusers' pipelines."""

    classes: tuple[str, ...]
    """The pipeline's class and its bases, by name."""
    guidance_scale: float
    """As the pipeline has it now; 1.0 where it knows none."""
    arguments: Mapping[str, Any]
    """What the user gave, by name."""
    defaults: Mapping[str, Any]
    """What stands for every argument that is not given."""
    prediction_type: str
    """What the pipeline's scheduler takes the network's answer for."""
    zero_is_nothing: bool
    """Whether no negative prompt is zeros here and an empty one is not (SDXL's `force_zeros_for_empty_prompt`)."""
    images: int | None
    """How many images it makes: the rows of its latents; None where it names none."""
    step: Any
    """An object of its own for every step of the sampler; None where it names none."""
    pipe: Any
    """The pipeline itself."""

    def check_arguments(self, adapter: str, learnt: Mapping[str, Any], is_doubled: bool = False) -> None:
        """The user gives no argument that has no effect on an adapter.

        Args:
            adapter: its name, for messages.
            learnt: arguments that it has learnt, which may be given all the same.
            is_doubled: the batch is doubled all the same, so embeddings that say nothing else are no mistake.

        Raises:
            InputError: what it is, and what to do.
        """
        for name in (*self.defaults, *self.arguments):
            if name in _OFF or name.startswith(_NEGATIVE):
                self._check_argument(name, adapter, learnt, is_doubled)

    def _check_argument(self, name: str, adapter: str, learnt: Mapping[str, Any], is_doubled: bool) -> None:
        default = self.defaults.get(name)
        value, nothing = self.arguments.get(name, default), _OFF.get(name, default)
        if (known := name.rstrip(_FURTHER)) in learnt and self.arguments.get(name) is not None:
            if not _is_throughout(value, learnt[known]):
                only = f"which has learnt {known}={learnt[known]!r}: give that or drop it"
                raise InputError(f"{self.classes[0]}: {name} has no effect on adapter {adapter!r}, {only}; {FOR_CFG}")
        elif is_doubled and isinstance(value, Tensor):
            self._check_embeddings(name, value, adapter, learnt.get("negative_prompt", ""))
        elif not self._says_nothing(value, nothing):
            advice = "drop it" if self._says_nothing(default, nothing) else f"give {name}={nothing!r}"
            raise InputError(f"{self.classes[0]}: {name} has no effect on adapter {adapter!r}: {advice}; {FOR_CFG}")

    def check_setting(self, adapter: str, guidance_range: tuple[float, float], prediction_type: str) -> None:
        """The pipeline is at a guidance scale, and has a scheduler, that an adapter was trained for.

        Args:
            adapter: its name, for messages.
            guidance_range: the scales that it was trained for.
            prediction_type: what it was trained for.

        Raises:
            InputError: it has another, and what to do.
        """
        if self.prediction_type != prediction_type:
            raise InputError(
                f"{self.classes[0]}: its scheduler expects {self.prediction_type}, adapter {adapter!r} was trained for "
                f"{prediction_type}; give it the scheduler that it had; {FOR_CFG}"
            )
        low, high = guidance_range
        if not low <= self.guidance_scale <= high:
            raise InputError(
                f"{self.classes[0]}: guidance_scale {self.guidance_scale:g} is outside the range {low:g} to {high:g} "
                f"that adapter {adapter!r} was trained for; {FOR_CFG}"
            )

    def _check_embeddings(self, name: str, value: Tensor, adapter: str, learnt: str) -> None:
        """Embeddings are those of the negative prompt that was learnt; a mask says which of them count."""
        if not value.is_floating_point():
            return
        longest = self.arguments.get("max_sequence_length", self.defaults.get("max_sequence_length", 256))
        if not says_only(learnt, value, self.pipe, longest):
            own = f"{learnt!r}'s" if learnt else "an empty prompt's"
            raise InputError(
                f"{self.classes[0]}: {name} has no effect on adapter {adapter!r}: drop it, or, beside prompt_embeds of "
                f"another length than the pipeline's own, give zeros of their shape or {own}; {FOR_CFG}"
            )

    def _says_nothing(self, value: Any, nothing: Any) -> bool:
        """Whether an argument says no more than `nothing` does."""
        if value is None or isinstance(value, Tensor):
            return value is None
        texts = value if isinstance(value, list | tuple) else [value]
        if all(isinstance(text, str) for text in texts):
            return not any(texts) and not self.zero_is_nothing
        return bool(value == nothing)


def _is_throughout(value: Any, learnt: Any) -> bool:
    """Whether an argument is what an adapter has learnt, in every row of a list."""
    return all(each == learnt for each in (value if isinstance(value, list | tuple) else [value]))


def prediction_type_of(scheduler: Any) -> str:
    """What a scheduler takes the network's answer for: "epsilon", "v_prediction", "flow" or diffusers' other words."""
    said = str(scheduler.config.get("prediction_type", "epsilon"))
    return "flow" if "FlowMatch" in type(scheduler).__name__ or said == "flow_prediction" else said


def running_call() -> RunningCall | None:
    """The innermost pipeline call on this thread's stack, None where a network is called by other means.

    Raises:
        InputError: the pipeline is a modular one, whose guider makes the passes.
    """
    from diffusers import DiffusionPipeline

    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frames.append(frame)
        if frame.f_code.co_name == "__call__":
            owner = frame.f_locals.get("self")
            if isinstance(owner, DiffusionPipeline):
                return _read(owner, frame, frames)
            if is_modular(owner):
                raise InputError(
                    f"{type(owner).__name__} is part of a modular pipeline, whose guider guides by passes of its own: "
                    f"an adapter guides classic pipelines, e.g. StableDiffusionXLPipeline(**components); {FOR_CFG}"
                )
        frame = frame.f_back
    return None


def is_modular(thing: Any) -> bool:
    """Whether this is one of diffusers' modular pipelines or blocks; nothing is while nobody has imported them."""
    module = sys.modules.get("diffusers.modular_pipelines.modular_pipeline")
    return module is not None and isinstance(thing, module.ModularPipeline | module.ModularPipelineBlocks)


def _read(pipe: Any, frame: FrameType, frames: list[FrameType]) -> RunningCall:
    """What the call in `frame` is; `frames` are those from the network up to it."""
    defaults = _defaults(type(pipe), frame.f_code)  # type: ignore[arg-type]
    scale = getattr(pipe, "_guidance_scale", frame.f_locals.get("guidance_scale"))
    classes = tuple(kind.__name__ for kind in type(pipe).__mro__)
    latents = _variable(pipe, frames, "latents")
    return RunningCall(
        classes,
        1.0 if scale is None else float(scale),
        _given(frame, tuple(defaults)),
        defaults,
        prediction_type_of(pipe.scheduler),
        bool(pipe.config.get("force_zeros_for_empty_prompt")),
        len(latents) if isinstance(latents, Tensor) and latents.ndim else None,
        _variable(pipe, frames, "t"),
        pipe,
    )


def _variable(pipe: Any, frames: list[FrameType], name: str) -> Any:
    """A variable of the pipeline's own functions, the outermost one that has it; None where none has."""
    variables = (frame.f_locals for frame in reversed(frames))
    return next((found[name] for found in variables if found.get("self") is pipe and name in found), None)


def _given(frame: FrameType, names: tuple[str, ...]) -> dict[str, Any]:
    """The arguments as the user gave them.

    They are those of `torch.no_grad`'s wrapper around every pipeline's `__call__`; the call itself may have put others
    into its own variables since.
    """
    outer = frame.f_back
    if outer is not None and outer.f_globals["__name__"] == "torch.utils._contextlib":
        args, kwargs = outer.f_locals["args"], outer.f_locals["kwargs"]
        return dict(zip(names, args[1:], strict=False)) | dict(kwargs)
    return {name: frame.f_locals[name] for name in names if name in frame.f_locals}


@cache
def _defaults(pipeline_class: type, code: CodeType) -> dict[str, Any]:
    """Arguments of the `__call__` with this code: a subclass may have one of its own above it."""
    calls = [vars(kind)["__call__"] for kind in pipeline_class.__mro__ if "__call__" in vars(kind)]
    running = next((call for call in calls if getattr(inspect.unwrap(call), "__code__", None) is code), calls[0])
    parameters = list(inspect.signature(running).parameters.values())[1:]
    named = (parameter for parameter in parameters if parameter.kind not in _COLLECTING)
    return {parameter.name: parameter.default for parameter in named}
