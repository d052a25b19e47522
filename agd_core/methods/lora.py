"""Low-rank adapters of the attention's own projections (LoRA, https://arxiv.org/abs/2106.09685).

A LoRA knows no guidance scale: it is trained for one, and its weight is the dial to others. The file has peft's names,
so what loads LoRAs loads it; diffusers' pipelines then guide in one pass with `guidance_scale=1`.
"""

import math
from collections.abc import Iterator
from itertools import repeat
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from agd_core.basics.errors import InputError
from agd_core.basics.seeding import derive_seed
from agd_core.methods.agd.attach import AttachedLayers
from agd_core.methods.agd.layers import AdapterLayer, Codes, Prepared, add_product, cast
from agd_core.methods.attached import GuidedCall
from agd_core.methods.base import MethodConfig, Trained
from agd_core.models.backbones import AdapterSite, Backbone
from agd_core.models.denoiser import rowwise


class LoraConfig(MethodConfig):
    """A low-rank matrix beside every projection that is named.

    At another guidance scale than its own, its weight is (guidance_scale - 1) / (its own - 1): 0 without guidance.
    """

    about: ClassVar[str] = (
        "It is a LoRA ([arXiv 2106.09685](https://arxiv.org/abs/2106.09685)) of the attention's projections, in peft's "
        "format: at weight 1 it stands for one guidance scale, and its weight is the dial to others."
    )
    tags: ClassVar[tuple[str, ...]] = ("lora", "arxiv:2106.09685")

    kind: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1, le=1024)
    """Of every matrix."""
    guidance_scale: float = Field(5.0, gt=1, le=1000)
    """The scale that it stands for at weight 1; best in the middle of what is collected."""
    targets: tuple[str, ...] = Field(("to_q", "to_k", "to_v", "to_out.0"), min_length=1)
    """Ends of the names of the linear layers that have one; the defaults are those of diffusers' attention."""

    def build(self, backbone: Backbone, seed: int = 0) -> "Lora":
        """One matrix for every linear layer of the network that is named.

        Raises:
            InputError: a target names none.
        """
        linears = {name: each for name, each in backbone.network.named_modules() if _is_linear(each)}
        for target in self.targets:
            if not any(name.endswith(f".{target}") for name in linears):
                raise InputError(f"methods: no linear layer of {backbone.class_name} ends in the target {target!r}")
        ends = tuple(f".{target}" for target in self.targets)
        return Lora(self, backbone.component, {name: linears[name] for name in linears if name.endswith(ends)}, seed)


class LowRank(AdapterLayer):
    """`B(A(x))` times the weight: inputs -> rank -> outputs, as peft begins it: A random, B zero."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.lora_A = nn.Linear(inputs, rank, bias=False)
        self.lora_B = nn.Linear(rank, outputs, bias=False)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def prepare(self, codes: Codes, weight: Tensor) -> Prepared:
        """A, B and the weight `[batch]`, which is in B where all rows have the same."""
        mine = codes.scale.flatten() * weight
        if len(mine) == 1:
            return self.lora_A.weight, self.lora_B.weight.t() * mine
        return self.lora_A.weight, self.lora_B.weight.t(), mine

    def steps(self, codes: Codes, weight: Tensor, dtype: torch.dtype) -> Iterator[Prepared]:
        """All steps are alike."""
        return repeat(cast(self.prepare(codes, weight), dtype))

    @staticmethod
    def add(output: Tensor, hidden_states: Tensor, prepared: Prepared) -> Tensor:
        """The products to `[batch, ..., outputs]` from `[batch, ..., inputs]`."""
        inner = nn.functional.linear(hidden_states, prepared[0])
        return add_product(output, inner if len(prepared) == 2 else inner * rowwise(prepared[2], inner), prepared[1])


class Lora(Trained):
    """A low-rank layer for every linear one, in a tree of the network's own names below its component's.

    Args:
        config: rank and guidance scale.
        component: what pipelines call the network.
        linears: the network's layers by path.
        seed: of the initial weights.
    """

    def __init__(self, config: LoraConfig, component: str, linears: dict[str, Any], seed: int) -> None:
        super().__init__(config)
        self.guidance_scale = config.guidance_scale
        self.sites = tuple(AdapterSite(path, linear.out_features) for path, linear in linears.items())
        self._paths = tuple(f"{component}.{path}" for path in linears)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "lora"))
            for path, linear in zip(self._paths, linears.values(), strict=True):
                self._plant(path, LowRank(linear.in_features, config.rank, linear.out_features))

    def attach(self, network: nn.Module) -> AttachedLayers:
        """Add every matrix's answer to that of its linear layer."""
        layers: list[Any] = [self.get_submodule(path) for path in self._paths]
        return AttachedLayers(network, self.sites, layers, self.encode, scale_output=False)

    def encode(self, call: GuidedCall) -> list[Codes]:
        """The weight of every row, for every layer."""
        weight = (call.ask.guidance_scale - 1) / (self.guidance_scale - 1)
        return [Codes(weight[:, None, None])] * len(self.sites)

    def _plant(self, path: str, layer: LowRank) -> None:
        """Put a layer where its weights have peft's names."""
        *parents, last = path.split(".")
        branch: nn.Module = self
        for name in parents:
            if name not in dict(branch.named_children()):
                branch.add_module(name, nn.Module())
            branch = branch.get_submodule(name)
        branch.add_module(last, layer)


def _is_linear(module: nn.Module) -> bool:
    """Whether it is a linear layer, maybe one with LoRAs of other people's around it."""
    return isinstance(getattr(module, "base_layer", module), nn.Linear)
