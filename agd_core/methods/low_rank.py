"""Low-rank matrices beside a network's own linear layers, under peft's names (LoRA, https://arxiv.org/abs/2106.09685).

What every method that consists of them shares: which layers have one, how it is computed, and its place in the file.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import ClassVar

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


class LowRankConfig(MethodConfig, ABC):
    """Settings that every method of low-rank matrices has."""

    tags: ClassVar[tuple[str, ...]] = ("lora", "arxiv:2106.09685")

    rank: int = Field(16, ge=1, le=1024)
    """Of every matrix."""
    targets: tuple[str, ...] = Field(("to_q", "to_k", "to_v", "to_out.0"), min_length=1)
    """Ends of the names of the linear layers that have one; the defaults are those of diffusers' attention."""

    def linears(self, backbone: Backbone) -> dict[str, nn.Linear]:
        """The network's linear layers that are named, by their paths.

        Raises:
            InputError: a target names none.
        """
        linears = {name: each for name, each in backbone.network.named_modules() if _is_linear(each)}
        for target in self.targets:
            if not any(name.endswith(f".{target}") for name in linears):
                raise InputError(f"methods: no linear layer of {backbone.class_name} ends in the target {target!r}")
        ends = tuple(f".{target}" for target in self.targets)
        return {name: linears[name] for name in linears if name.endswith(ends)}


class LowRank(AdapterLayer):
    """`B(A(x))` times the weight: inputs -> rank -> outputs, as peft begins it: A random, B zero."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.lora_A = nn.Linear(inputs, rank, bias=False)
        self.lora_B = nn.Linear(rank, outputs, bias=False)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def gate(self, codes: Codes, weight: Tensor) -> Tensor:
        """By what the inner vector is multiplied: `[batch, 1]`, or `[..., batch, rank]` for each of its entries."""
        return codes.scale[:, 0] * weight[:, None]

    def prepare(self, codes: Codes, weight: Tensor) -> Prepared:
        """A `[rank, inputs]`, B `[rank, outputs]` and the gate, which is in B where all rows have the same."""
        gate = self.gate(codes, weight)
        if len(gate) == 1:
            return self.lora_A.weight, self.lora_B.weight.t() * gate.t()
        return self.lora_A.weight, self.lora_B.weight.t(), gate

    def steps(self, codes: Codes, weight: Tensor, dtype: torch.dtype) -> Iterator[Prepared]:
        """All steps are alike."""
        return repeat(cast(self.prepare(codes, weight), dtype))

    @staticmethod
    def add(output: Tensor, hidden_states: Tensor, prepared: Prepared) -> Tensor:
        """The products to `[batch, ..., outputs]` from `[batch, ..., inputs]`."""
        inner, up = nn.functional.linear(hidden_states, prepared[0]), prepared[1]
        if len(prepared) == 3:
            gate = prepared[2]
            inner = inner * gate.view(len(gate), *[1] * (inner.ndim - 2), -1)
        return add_product(output, inner, up)


class LowRankLayers(Trained):
    """A low-rank layer for every linear one, in a tree of the network's own names below its component's.

    Args:
        config: which layers.
        backbone: the network they hang on, maybe on the meta device.
        layer: makes one from a linear layer's inputs, the rank and its outputs.
        scale_output: multiply what is added by (guidance_scale - 1).
        seed: of the initial weights.
    """

    def __init__(
        self,
        config: LowRankConfig,
        backbone: Backbone,
        layer: Callable[[int, int, int], LowRank],
        scale_output: bool,
        seed: int,
    ) -> None:
        super().__init__(config)
        linears = config.linears(backbone)
        self.sites = tuple(AdapterSite(path, linear.out_features) for path, linear in linears.items())
        self._scale_output = scale_output
        self._paths = tuple(f"{backbone.component}.{path}" for path in linears)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "lora"))
            for path, linear in zip(self._paths, linears.values(), strict=True):
                self._plant(path, layer(linear.in_features, config.rank, linear.out_features))

    @abstractmethod
    def encode(self, call: GuidedCall) -> list[Codes]:
        """The encoded call for every layer."""

    def attach(self, network: nn.Module) -> AttachedLayers:
        """Add every matrix's answer to that of its linear layer."""
        layers = [self.get_submodule(path) for path in self._paths]
        return AttachedLayers(network, self.sites, layers, self.encode, self._scale_output)

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
