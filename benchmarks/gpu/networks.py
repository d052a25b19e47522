"""Published networks at full size with random weights, and the steps that are measured on them."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.memory import Sized
from agd_core.memory.fake_model import FakeModel
from agd_core.methods import MethodConfig, Trained
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Denoiser
from agd_core.models.model import BaseModel
from benchmarks.gpu.timing import Side, Step
from flows.config import PipelineConfig
from flows.stages.sizes import Sizes

META = torch.device("meta")
MIDDLE, SCALE = 500.0, 4.0
"""Timestep and guidance scale of every call."""
STD = 0.02
"""Of random weights: small enough that numbers stay finite through all layers."""


class RandomModel(FakeModel):
    """A model at a size, of random weights on a device; on the meta device, of none."""

    def __init__(self, sized: Sized, device: torch.device) -> None:
        super().__init__(sized, materialised(sized.network(), device))
        self.device = device


def materialised(module: Any, device: torch.device) -> Any:
    """A module of the meta device on this one: matrices and tables drawn, norms' scales 1, biases 0."""
    if device.type == "meta":
        return module
    module = module.to_empty(device=device).eval()
    draw = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            _ = tensor.normal_(std=STD, generator=draw) if tensor.ndim > 1 else tensor.fill_(name.endswith("weight"))
    return module


def free(device: torch.device) -> None:
    """Give back the memory of what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def sized_of(config: PipelineConfig, device: torch.device, dtype: torch.dtype | None = None) -> Sized:
    """A configuration's base model as `agd doctor` sees it, in its own precision where none is given."""
    sizes, dtype = Sizes(config), dtype or config.base_model.torch_dtype
    return Sized(sizes.model, sizes.latent_side, dtype, on_cuda=device.type == "cuda")


@dataclass(frozen=True)
class Inputs:
    """What a step is called with."""

    latents: Tensor
    timestep: Tensor
    ask: Ask

    @classmethod
    def random(cls, sized: Sized, rows: int, device: torch.device) -> "Inputs":
        """Seeded noise, class 0 or a prompt of noise; a null condition costs what the same condition costs."""
        with META if device == META else torch.device("cpu"):
            latents, ones = drawn(sized.latents(rows), rows).to(device), torch.ones(rows).to(device)
            tensors = sized.conditions(rows).tensors().items()
            condition = Condition(**{name: drawn(tensor, rows).to(device) for name, tensor in tensors})
        return cls(latents, ones * MIDDLE, Ask(condition, condition, ones * SCALE))


def drawn(tensor: Tensor, seed: int) -> Tensor:
    """The tensor filled with noise, or with zeros where it holds numbers of classes."""
    if tensor.is_meta:
        return tensor
    draw = torch.Generator().manual_seed(seed)
    return tensor.normal_(generator=draw) if tensor.is_floating_point() else tensor.zero_()


def trained_of(config: MethodConfig, model: BaseModel) -> Trained:
    """A method of random weights for this model, on its device."""
    with META:
        trained = config.build(model.backbone)
    made: Trained = materialised(trained, model.device)
    return made


@torch.no_grad()
def step_of(denoiser: Denoiser, inputs: Inputs) -> Step:
    """One of a sampler's steps; what a sampler computes before its first step is left out."""
    answer = next(denoiser.steps(inputs.timestep[:1], inputs.ask))
    return partial(answer, inputs.latents)


def guided(model: BaseModel) -> GuidedDenoiser:
    """The model under classifier-free guidance: two rows per image in one batch, then the formula."""
    return GuidedDenoiser(model, ClassifierFreeGuidance())


def sides(model: BaseModel, methods: Mapping[str, Trained], inputs: Inputs) -> dict[str, Side]:
    """Bare, CFG and every method; each method hangs on the network during its own turns only."""
    plain = {"bare": model, "CFG": guided(model)}

    @contextmanager
    def with_method(trained: Trained) -> Iterator[Step]:
        with trained.installed(model) as student:
            yield step_of(student, inputs)

    found: dict[str, Side] = {name: partial(nullcontext, step_of(each, inputs)) for name, each in plain.items()}
    return found | {name: partial(with_method, trained) for name, trained in methods.items()}


@torch.no_grad()
def flops_of(side: Side) -> int:
    """Of one step: matrix products, convolutions and attention in its plain form; a multiply-add is two."""
    with side() as step, sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())
