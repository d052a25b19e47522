"""How far one pass with an adapter is from the guidance that it stands for, in the user's own composition."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from agd_core.guidance import ClassifierFreeGuidance
from agd_core.models.backbones import backbone_of
from agd_core.models.doors.doors import GuidanceEmbedding, Limits
from agd_core.pipelines.loading import adapters_of, forget_compiled, network_of, set_enabled

_IMAGE_EMBEDS = "ip_adapter_image_embeds"
_ROUNDING = 8
"""Results closer than so many steps of the network's precision (root mean square over the teacher's) are equal."""


@dataclass(frozen=True)
class Drift:
    """Distances between three results of one pipeline call from the same noise, and what each of them cost.

    The teacher is the pipeline's own CFG with everything that is attached to the pipeline, at the same guidance scale.
    """

    student_teacher: float
    """Mean squared distance of one pass with the adapter to the teacher."""
    unguided_teacher: float
    """Mean squared distance of no guidance to the teacher."""
    student_nfe: float
    """Rows that went through the denoising network per image; a ControlNet's are not among them."""
    teacher_nfe: float
    unguided_nfe: float
    compared: Literal["latents", "images"]
    """Final latents; images in 0..1 where the pipeline gives no latents (DiTPipeline)."""

    @property
    def relative(self) -> float:
        """`student_teacher / unguided_teacher`: 0 is the teacher itself, 1 as far from it as no guidance."""
        return self.student_teacher / self.unguided_teacher

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {"relative": self.relative, **asdict(self)}


def measure_drift(pipe: Any, **call: Any) -> Drift:
    """Make the user's own call three times from the same noise: with the adapter, with CFG, without guidance.

    LoRAs, ControlNets and IP-Adapters that the pipeline has stay attached in all three. `output_type` and `return_dict`
    of the call do not matter. A generator ends where one call leaves it; the adapter is on or off as it was before.

    Args:
        pipe: one of diffusers' pipelines into which `agd_core.load_adapter` has loaded an adapter.
        call: arguments of `pipe(...)` with a guidance scale above 1, and with `generator=` (one or a list) or
            `latents=`; `ip_adapter_image_embeds` in the form that CFG takes, [negative, positive] along the batch.

    Raises:
        InputError: no adapter is loaded or active, or it has learnt what this pipeline's CFG cannot; the call carries
            no seed, or guidance changes nothing in it.
    """
    network = network_of(pipe)
    call = {**_learnt(pipe, adapters_of(network).limits, call), **call, "output_type": "latent", "return_dict": False}
    _check_guidance(pipe, call)
    generators = _generators(call)
    guided, positive = _image_embeds(call)
    by_embedding = isinstance(backbone_of(network).door, GuidanceEmbedding)
    three = _ThreeCalls(pipe, network, call, generators)
    with _as_it_was(pipe, network):
        student = three.make(True, positive if by_embedding else guided)
        teacher = three.make(False, guided)
        unguided = three.make(False, {**positive, "guidance_scale": 1.0})
    _check_moved(unguided, teacher, next(network.parameters()).dtype)
    compared: Literal["latents", "images"] = "latents" if isinstance(teacher.output, Tensor) else "images"
    distances = student.distance(teacher), unguided.distance(teacher)
    return Drift(*distances, student.nfe, teacher.nfe, unguided.nfe, compared)


@dataclass(frozen=True)
class _Result:
    output: Any
    """`[images, ...]`: latents are a tensor, images a numpy array."""
    rows: int

    @property
    def nfe(self) -> float:
        return self.rows / len(self.output)

    def distance(self, other: "_Result") -> float:
        ours, theirs = (torch.as_tensor(result.output).double() for result in (self, other))
        return float((ours - theirs).square().mean())


@dataclass(frozen=True)
class _ThreeCalls:
    """Equal calls but for what is changed: every one starts from the same random state."""

    pipe: Any
    network: nn.Module
    call: Mapping[str, Any]
    generators: list[tuple[torch.Generator, Tensor]]
    """Each with its state before the first call."""

    def make(self, enabled: bool, changes: Mapping[str, Any]) -> _Result:
        for generator, state in self.generators:
            generator.set_state(state)
        set_enabled(self.pipe, enabled)
        device = next(self.network.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), _counted(self.network) as counter:
            forget_compiled(self.pipe)
            output = self.pipe(**{**self.call, **changes})[0]
        return _Result(output, counter.rows)


class _RowCounter:
    """Pre-hook of the network, behind the adapters': it sees what they let through."""

    def __init__(self) -> None:
        self.rows = 0

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def count(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.rows += len(backbone_of(network).read_call(args, kwargs).latents)


@contextmanager
def _counted(network: nn.Module) -> Iterator[_RowCounter]:
    counter = _RowCounter()
    handle = network.register_forward_pre_hook(counter.count, with_kwargs=True)
    try:
        yield counter
    finally:
        handle.remove()


@contextmanager
def _as_it_was(pipe: Any, network: nn.Module) -> Iterator[None]:
    """Adapters on or off as before, whatever happens."""
    enabled = adapters_of(network).enabled
    try:
        yield
    finally:
        set_enabled(pipe, enabled)


def _learnt(pipe: Any, limits: Limits, call: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by which the pipeline's CFG is the teacher that the adapter has learnt from."""
    if (kind := limits.guidance["kind"]) != ClassifierFreeGuidance().kind:
        raise InputError(f"measure_drift compares with CFG, the active adapter has learnt {printable(kind)}")
    if unknown := limits.learnt.keys() - inspect.signature(type(pipe).__call__).parameters.keys():
        name = type(pipe).__name__
        raise InputError(
            f"measure_drift: a {name} takes no {min(unknown)}, by which the active adapter's teacher guided"
        )
    learnt, negative, prompt = limits.learnt, "negative_prompt", call.get("prompt")
    asked = call.get("prompt_embeds") if prompt is None else prompt
    if negative in learnt and isinstance(asked, list | Tensor):
        learnt[negative] = [learnt[negative]] * len(asked)  # pipelines want as many as there are prompts
    return learnt


def _check_guidance(pipe: Any, call: Mapping[str, Any]) -> None:
    parameter = inspect.signature(type(pipe).__call__).parameters.get("guidance_scale")
    scale = call.get("guidance_scale", parameter.default if parameter else 1.0)
    if not scale > 1:
        raise InputError(f"measure_drift: guidance_scale {scale:g} is no guidance; drift is measured above 1")


def _generators(call: Mapping[str, Any]) -> list[tuple[torch.Generator, Tensor]]:
    """Those of a call with their states."""
    given = call.get("generator")
    generators = given if isinstance(given, list | tuple) else [given]
    found = [(generator, generator.get_state()) for generator in generators if isinstance(generator, torch.Generator)]
    if not found and call.get("latents") is None:
        raise InputError("measure_drift compares calls from the same noise: give generator= or latents=")
    return found


def _image_embeds(call: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The call's IP-Adapter embeddings with and without the negative ones, nothing where it has none."""
    if (given := call.get(_IMAGE_EMBEDS)) is None:
        return {}, {}
    many = isinstance(given, list | tuple)
    if odd := [len(embeds) for embeds in (given if many else [given]) if len(embeds) % 2]:
        raise InputError(
            f"measure_drift: {_IMAGE_EMBEDS} has {odd[0]} rows; give those of CFG, [negative, positive] along the "
            "batch, an even number"
        )
    positive = [embeds.chunk(2)[1] for embeds in given] if many else given.chunk(2)[1]
    return {_IMAGE_EMBEDS: given}, {_IMAGE_EMBEDS: positive}


def _check_moved(unguided: _Result, teacher: _Result, precision: torch.dtype) -> None:
    """An empty prompt against no prompt is nothing but rounding."""
    size = float(torch.as_tensor(teacher.output).double().square().mean())
    if unguided.distance(teacher) <= size * (_ROUNDING * torch.finfo(precision).eps) ** 2:
        raise InputError("measure_drift: guidance changes nothing in this call, so there is no drift to relate to it")
