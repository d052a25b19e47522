"""Low-rank matrices beside a network's own linear layers and convolutions, under peft's names.

LoRA: https://arxiv.org/abs/2106.09685; of convolutions: https://arxiv.org/abs/2309.14859.

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

Adaptable = nn.Linear | nn.Conv2d
"""What can have a low-rank one beside it."""


class LowRankConfig(MethodConfig, ABC):
    """Settings that every method of low-rank matrices has."""

    tags: ClassVar[tuple[str, ...]] = ("lora", "arxiv:2106.09685")

    rank: int = Field(16, ge=1, le=1024)
    """Of every matrix."""
    targets: tuple[str, ...] = Field(("to_q", "to_k", "to_v", "to_out.0"), min_length=1)
    """Ends of the names of the linear layers and convolutions that have one; the defaults are those of diffusers'
    attention."""

    def adapted(self, backbone: Backbone) -> dict[str, Adaptable]:
        """The network's linear layers and convolutions that are named, by their paths.

        Raises:
            InputError: a target names none.
        """
        layers = {name: each for name, module in backbone.network.named_modules() if (each := _adaptable(module))}
        for target in self.targets:
            if not any(f".{name}".endswith(f".{target}") for name in layers):
                raise InputError(
                    f"methods: no linear layer or convolution of {backbone.class_name} ends in the target {target!r}"
                )
        ends = tuple(f".{target}" for target in self.targets)
        return {name: layers[name] for name in layers if f".{name}".endswith(ends)}


class LowRank(AdapterLayer):
    """`B(A(x))` times the weight: inputs -> rank -> outputs, as peft begins it: A random, B zero.

    Beside a convolution A is one of the same kernel and stride, and B one of 1 x 1.
    """

    def __init__(self, beside: Adaptable, rank: int) -> None:
        super().__init__()
        self.lora_A: Adaptable
        self.lora_B: Adaptable
        if isinstance(beside, nn.Conv2d):
            self.lora_A = nn.Conv2d(beside.in_channels, rank, _side(beside), beside.stride[0], bias=False)
            self.lora_B = nn.Conv2d(rank, beside.out_channels, 1, bias=False)
        else:
            self.lora_A = nn.Linear(beside.in_features, rank, bias=False)
            self.lora_B = nn.Linear(rank, beside.out_features, bias=False)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def gate(self, codes: Codes, weight: Tensor) -> Tensor:
        """By what the inner vector is multiplied: `[batch, 1]`, or `[..., batch, rank]` for each of its entries."""
        return codes.scale[:, 0] * weight[:, None]

    @property
    def up(self) -> Tensor:
        """B as `[rank, outputs]`."""
        return self.lora_B.weight.flatten(1).t()

    def prepare(self, codes: Codes, weight: Tensor) -> Prepared:
        """A `[rank, inputs, *kernel]`, B `[rank, outputs]` and the gate, which is in B where all rows have the same."""
        gate = self.gate(codes, weight)
        if len(gate) == 1:
            return self.lora_A.weight, self.up * gate.t()
        return self.lora_A.weight, self.up, gate

    def steps(self, codes: Codes, weight: Tensor, dtype: torch.dtype) -> Iterator[Prepared]:
        """All steps are alike."""
        return repeat(cast(self.prepare(codes, weight), dtype))

    @staticmethod
    def add(output: Tensor, hidden_states: Tensor, prepared: Prepared) -> Tensor:
        """The products to `[batch, ..., outputs]` from `[batch, ..., inputs]`; to maps from maps."""
        if prepared[0].ndim > 2:
            return _add_convolved(output, hidden_states, prepared)
        inner, up = nn.functional.linear(hidden_states, prepared[0]), prepared[1]
        if len(prepared) == 3:
            gate = prepared[2]
            inner = inner * gate.view(len(gate), *[1] * (inner.ndim - 2), -1)
        return add_product(output, inner, up)


class LowRankLayers(Trained):
    """A low-rank layer for every one that is named, in a tree of the network's own names below its component's.

    Args:
        config: which layers.
        backbone: the network they hang on, maybe on the meta device.
        layer: makes one from the network's own layer and the rank.
        scale_output: multiply what is added by (guidance_scale - 1).
        seed: of the initial weights.
    """

    def __init__(
        self,
        config: LowRankConfig,
        backbone: Backbone,
        layer: Callable[[Adaptable, int], LowRank],
        scale_output: bool,
        seed: int,
    ) -> None:
        super().__init__(config)
        adapted = config.adapted(backbone)
        self.sites = tuple(AdapterSite(path, len(beside.weight)) for path, beside in adapted.items())
        self._scale_output = scale_output
        self._paths = tuple(f"{backbone.component}.{path}" for path in adapted)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "lora"))
            for path, beside in zip(self._paths, adapted.values(), strict=True):
                self._plant(path, layer(beside, config.rank))

    @abstractmethod
    def encode(self, call: GuidedCall) -> list[Codes]:
        """The encoded call for every layer."""

    def attach(self, network: nn.Module) -> AttachedLayers:
        """Add every matrix's answer to that of its layer."""
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


def _adaptable(module: nn.Module) -> Adaptable | None:
    """The linear layer or convolution that it is, maybe with LoRAs of other people's around it."""
    own = getattr(module, "base_layer", module)
    if isinstance(own, nn.Linear):
        return own
    return own if isinstance(own, nn.Conv2d) and _is_plain(own) else None


def _is_plain(convolution: nn.Conv2d) -> bool:
    """Whether its output has a pixel for each of the input's, or for each of its stride's."""
    side = _side(convolution)
    whole = convolution.kernel_size == (side, side) and convolution.padding == (side // 2, side // 2)
    strided = convolution.stride in ((1, 1), (2, 2)) and convolution.dilation == (1, 1)
    return whole and strided and side % 2 == 1 and convolution.groups == 1


def _side(convolution: nn.Conv2d) -> int:
    return convolution.kernel_size[0]


def _add_convolved(output: Tensor, hidden_states: Tensor, prepared: Prepared) -> Tensor:
    """The products to `[batch, outputs, height, width]` from `[batch, inputs, height * stride, width * stride]`."""
    down, up = prepared[:2]
    stride = -(-hidden_states.shape[-1] // output.shape[-1])
    inner = nn.functional.conv2d(hidden_states, down, stride=stride, padding=down.shape[-1] // 2)
    if len(prepared) == 3:
        inner = inner * prepared[2][..., None, None]
    return output + nn.functional.conv2d(inner, up.t()[..., None, None])
