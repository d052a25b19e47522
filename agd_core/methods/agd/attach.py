"""Attaching an adapter's layers to a network with forward hooks.

They are bound methods of objects: a deep copy of the network has a copy of the adapter on it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from agd_core.methods.agd.layers import AdapterLayer, Codes, Prepared, cast
from agd_core.methods.attached import Attached, GuidedCall
from agd_core.models.ask import Ask
from agd_core.models.backbones import AdapterSite

_MOST_PREPARED = 1 << 28
"""Bytes of float32; no more steps are prepared together than need so many."""


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
        layers: Iterable[Any],
        encode: Callable[[GuidedCall], list[Codes]],
        scale_output: bool,
    ) -> None:
        self._scale_output = scale_output
        self._encode = encode
        self._sites = [_Site(self, *each) for each in zip(sites, layers, strict=True)]
        self._handles = [
            network.get_submodule(place.path).register_forward_hook(site.add_offset, with_kwargs=True)
            for place, site in zip(sites, self._sites, strict=True)
        ]

    def encode(self, call: GuidedCall) -> list[Prepared]:
        """What every site needs of a call."""
        weight, codes = self._weight(call), self._encode(call)
        prepared = (site.layer.prepare(each, weight) for site, each in zip(self._sites, codes, strict=True))
        return [cast(each, call.backbone.dtype) for each in prepared]

    @torch.no_grad()
    def steps(self, call: GuidedCall) -> Iterator[GuidedCall]:
        """The calls of a sampler's steps; as many as fit are prepared together."""
        few = replace(call, ask=call.ask[:1]) if _all_alike(call.ask) else call
        for timesteps in torch.split(call.timestep, self._window(few)):
            prepared = self._prepared(replace(few, timestep=timesteps[:, None]))
            for timestep, each in zip(timesteps, prepared, strict=False):
                yield replace(call, timestep=timestep.expand(len(call.ask)), codes=each)

    def begin(self, call: GuidedCall | None) -> None:
        """Hand every site what it needs, where that is known already."""
        self.call = call
        codes = None if call is None else call.codes
        for index, site in enumerate(self._sites):
            site.take(() if codes is None else codes[index])

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()

    def _prepared(self, call: GuidedCall) -> Iterator[Sequence[Prepared]]:
        """What every site needs, for each of a sampler's steps."""
        weight, dtype = self._weight(call), call.backbone.dtype
        pairs = zip(self._sites, self._encode(call), strict=True)
        return zip(*[site.layer.steps(codes, weight, dtype) for site, codes in pairs], strict=False)

    def _weight(self, call: GuidedCall) -> Tensor:
        """`[batch]`, by which what is added is multiplied."""
        excess = call.ask.guidance_scale - 1
        weight = excess if self._scale_output else torch.ones_like(excess)
        return torch.where(excess > 0, weight, 0.0) if call.off_at_one else weight

    def _window(self, call: GuidedCall) -> int:
        """Steps to prepare together."""
        one = 4 * sum(site.layer.prepared_size(site.width, len(call.ask)) for site in self._sites)
        return max(1, _MOST_PREPARED // one)


class _Site:
    """One module's place in what is attached."""

    def __init__(self, attached: AttachedLayers, place: AdapterSite, layer: AdapterLayer) -> None:
        self.attached = attached
        self.layer = layer
        self.width = place.width
        self.is_map = place.layout == "map"
        self.prepared: Prepared = ()
        """What the layer needs of the call that runs now; nothing where that is not known yet."""

    def take(self, prepared: Prepared) -> None:
        """What is needed of the next call."""
        self.prepared = prepared

    def add_offset(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Forward hook: the module's output with what is added, the image's stream of a joint attention's two."""
        if (call := self.attached.call) is None:
            return None
        if not self.prepared:
            self.attached.begin(None)  # encoding asks the base's own layers, of which this may be one
            call.have_codes(self.attached.encode)
            self.attached.begin(call)
        hidden_states = args[0] if args else kwargs["hidden_states"]
        if isinstance(output, tuple):
            return self._added(output[0], hidden_states), *output[1:]
        return self._added(output, hidden_states)

    def _added(self, output: Tensor, hidden_states: Tensor) -> Tensor:
        prepared = cast(self.prepared, output.dtype)
        if not self.is_map:
            return self.layer.add(output, hidden_states.to(output.dtype), prepared)
        moved = self.layer.add(_as_tokens(output), _as_tokens(hidden_states).to(output.dtype), prepared)
        return moved.transpose(1, 2).reshape(output.shape)


def _as_tokens(feature_map: Tensor) -> Tensor:
    """A feature map `[batch, width, *sides]` as `[batch, tokens, width]`."""
    return feature_map.flatten(2).transpose(1, 2)


def _all_alike(ask: Ask) -> bool:
    """Whether every row asks for the same."""
    tensors = (ask.guidance_scale, *ask.condition.tensors().values())
    return len(ask) == 1 or all(bool((each == each[:1]).all()) for each in tensors)
