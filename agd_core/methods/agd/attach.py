"""Attaching an adapter's layers to a network with forward hooks.

They are bound methods of objects: a deep copy of the network has a copy of the adapter on it.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from agd_core.methods.agd.layers import Codes, HiddenStates
from agd_core.methods.attached import Attached, GuidedCall
from agd_core.models.backbones import AdapterSite
from agd_core.models.denoiser import PerRow, rowwise


class AttachedLayers(Attached):
    """Layers that hang on a network's modules.

    Args:
        network: it has the sites.
        sites: one per layer.
        layers: they compute what is added.
        encode: an encoded call for every layer.
        scale_output: whether what is added is multiplied by (guidance_scale - 1).

    Raises:
        AttributeError: the network has no module at one of the sites.
    """

    def __init__(
        self,
        network: nn.Module,
        sites: Sequence[AdapterSite],
        layers: Iterable[nn.Module],
        encode: Callable[[GuidedCall], list[Codes]],
        scale_output: bool,
    ) -> None:
        self.scale_output = scale_output
        self._encode = encode
        self._sites = [_Site(self, *each) for each in zip(sites, layers, strict=True)]
        self._handles = [
            network.get_submodule(place.path).register_forward_hook(site.add_offset, with_kwargs=True)
            for place, site in zip(sites, self._sites, strict=True)
        ]

    def encode(self, call: GuidedCall) -> list[Codes]:
        """Codes for every site."""
        return self._encode(call)

    def begin(self, call: GuidedCall | None) -> None:
        """Hand every site its codes, where there are some already."""
        self.call = call
        codes = [None] * len(self._sites) if call is None or call.codes is None else call.codes
        for site, code in zip(self._sites, codes, strict=True):
            site.take(code)

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()


class _Site:
    """One module's place in what is attached."""

    def __init__(self, attached: AttachedLayers, place: AdapterSite, layer: nn.Module) -> None:
        self.attached = attached
        self.is_map = place.layout == "map"
        self.layer = layer
        self.code: Codes | None = None

    def take(self, code: Codes | None) -> None:
        """The encoded call for this site; None where there is none yet."""
        self.code = code

    def add_offset(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Forward hook: the module's output and the adapter's offset."""
        if (call := self.attached.call) is None:
            return None
        if self.code is None:
            call.have_codes(self.attached.encode)
            self.attached.begin(call)
        hidden_states = args[0] if args else kwargs["hidden_states"]
        tokens = _as_tokens(hidden_states) if self.is_map else hidden_states
        offset = self._offset(tokens, call.ask.guidance_scale, call.off_at_one)
        return _added(output, _as_map(offset, hidden_states) if self.is_map else offset)

    def _offset(self, tokens: Tensor, guidance_scale: PerRow, off_at_one: bool) -> Tensor:
        with _precision_of(tokens):
            offset: Tensor = self.layer(tokens.float(), self.code)
        excess = rowwise(guidance_scale - 1, offset)
        if self.attached.scale_output:
            offset = offset * excess
        return torch.where(excess > 0, offset, 0.0) if off_at_one else offset


def _as_tokens(feature_map: Tensor) -> HiddenStates:
    """A feature map `[batch, width, *sides]` as `[batch, tokens, width]`."""
    return feature_map.flatten(2).transpose(1, 2)


def _as_map(offset: Tensor, feature_map: Tensor) -> Tensor:
    """An offset `[batch, tokens or 1, width]` so that it can be added to a feature map."""
    sides = feature_map.shape[2:]
    shape = sides if offset.shape[1] == sides.numel() else (1,) * len(sides)
    return offset.transpose(1, 2).reshape(*feature_map.shape[:2], *shape)


def _precision_of(hidden_states: Tensor) -> AbstractContextManager[Any]:
    """The adapter's float32 layers compute as the network does where that is in half precision."""
    if hidden_states.dtype in (torch.bfloat16, torch.float16):
        return torch.autocast(hidden_states.device.type, hidden_states.dtype)
    return nullcontext()


def _added(output: Tensor | tuple[Tensor, ...], offset: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Add to the module's output, the first of a joint attention's (image, text) pair."""
    if isinstance(output, tuple):
        return output[0] + offset.to(output[0].dtype), *output[1:]
    return output + offset.to(output.dtype)
