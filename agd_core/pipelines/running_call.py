"""The pipeline call that is running now, read from the Python stack; nothing of it is changed.

A network's hook sees what the network is called with. What the user asked the pipeline for (the guidance scale of
pipelines that hand none to their network, a negative prompt) is in the call above it.
"""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from torch import Tensor

from agd_core.errors import InputError

_NEGATIVE = "negative_"
_OFF: Mapping[str, Any] = {"guidance_rescale": 0, "skip_guidance_layers": None, "pag_scale": 0, "guess_mode": False}
"""Arguments that change how the two halves of CFG are joined, and the value at which they do nothing."""
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

    def check(self, adapter: str, guidance_range: tuple[float, float]) -> None:
        """The user asks for nothing that an adapter cannot give.

        Raises:
            InputError: what it is, and what to do.
        """
        for name, default in self.defaults.items():
            value = self.arguments.get(name, default)
            nothing = _OFF.get(name, default)
            if (name in _OFF or name.startswith(_NEGATIVE)) and not _equal(value, nothing):
                raise InputError(f"{self.classes[0]}: {name} has no effect on adapter {adapter!r}: drop it; {FOR_CFG}")
        low, high = guidance_range
        if not low <= self.guidance_scale <= high:
            raise InputError(
                f"{self.classes[0]}: guidance_scale {self.guidance_scale:g} is outside the range {low:g} to {high:g} "
                f"that adapter {adapter!r} was trained for; {FOR_CFG}"
            )


def running_call() -> RunningCall | None:
    """The innermost pipeline call on this thread's stack, None where a network is called by other means."""
    from diffusers import DiffusionPipeline

    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "__call__" and isinstance(pipe := frame.f_locals.get("self"), DiffusionPipeline):
            return _read(pipe, frame)
        frame = frame.f_back
    return None


def _read(pipe: Any, frame: FrameType) -> RunningCall:
    defaults = _defaults(type(pipe))
    scale = getattr(pipe, "_guidance_scale", frame.f_locals.get("guidance_scale"))
    classes = tuple(kind.__name__ for kind in type(pipe).__mro__)
    return RunningCall(classes, 1.0 if scale is None else float(scale), _given(frame, tuple(defaults)), defaults)


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


def _defaults(pipeline_class: type) -> dict[str, Any]:
    parameters = list(inspect.signature(pipeline_class.__call__).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def _equal(value: Any, nothing: Any) -> bool:
    """Whether an argument says no more than `nothing` does."""
    if isinstance(value, Tensor):
        return False
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return not any(value)
    return value is None or value == "" or bool(value == nothing)
