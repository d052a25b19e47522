"""Attaching an adapter to a base network with forward hooks; nothing of the network is replaced.

The hooks are inert unless a call is active, so the base network used by itself is the base network, bit for bit. They
are bound methods of objects: a deep copy of the network has a copy of the adapter on it.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agd_core.adapters.base import Adapter, AdapterInputs, Codes
from agd_core.denoiser import PerRow


@runtime_checkable
class InputReader(Protocol):
    """Knows what an adapter learns about a call, once it is asked."""

    def read(self) -> AdapterInputs:
        """The inputs; asked inside the network, where the weights of an offloaded one are at hand."""
        ...


@dataclass
class AdapterCall:
    """A network call that an adapter acts on, while it runs."""

    guidance_scale: PerRow
    reader: InputReader | None = None
    """Asked at the first site where no codes are given."""
    codes: list[Codes] | None = None
    """The encoded call for every site."""
    off_at_one: bool = False
    """Add nothing in rows whose guidance scale is at most 1."""

    def encode(self, adapter: Adapter) -> None:
        """Have codes for every site."""
        if self.codes is None and self.reader is not None:
            self.codes = adapter.encode(self.reader.read())


class AttachedAdapter:
    """An adapter whose layers hang on a network's attention modules.

    Raises:
        AttributeError: the network has no module at one of the adapter's sites.
    """

    def __init__(self, network: nn.Module, adapter: Adapter) -> None:
        self.adapter = adapter
        self.call: AdapterCall | None = None
        """The call that runs now; None: the adapter is inert."""
        self.sites = [_Site(self, layer) for layer in adapter.layers]
        self._handles = [
            network.get_submodule(place.path).register_forward_hook(site.add_offset, with_kwargs=True)
            for place, site in zip(adapter.sites, self.sites, strict=True)
        ]

    @contextmanager
    def active(self, inputs: AdapterInputs) -> Iterator[None]:
        """Let the adapter act on every network call inside the block; the inputs are encoded at once."""
        with self._during(AdapterCall(inputs.guidance_scale, codes=self.adapter.encode(inputs))):
            yield

    def begin(self, call: AdapterCall | None) -> None:
        """Let the adapter act on this call until the next `begin`, on none with None."""
        self.call = call
        codes = [None] * len(self.sites) if call is None or call.codes is None else call.codes
        for site, code in zip(self.sites, codes, strict=True):
            site.take(code)

    def checkpointed(self, module: Callable[..., Any], *args: Any) -> Any:
        """Run a part of the network now and once more in the backward pass, instead of keeping its activations.

        For `network.enable_gradient_checkpointing(attached.checkpointed)`. The backward pass runs when the call is long
        over; the adapter then acts as it did in the call.
        """
        call = self.call

        def run(*args: Any) -> Any:
            with self._during(call):
                return module(*args)

        return checkpoint(run, *args, use_reentrant=False)

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()

    @contextmanager
    def _during(self, call: AdapterCall | None) -> Iterator[None]:
        before = self.call
        self.begin(call)
        try:
            yield
        finally:
            self.begin(before)


class _Site:
    """One attention module's place in an attached adapter."""

    def __init__(self, attached: AttachedAdapter, layer: nn.Module) -> None:
        self.attached = attached
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
            call.encode(self.attached.adapter)
            self.attached.begin(call)
        return _added(output, self._offset(args[0] if args else kwargs["hidden_states"], call))

    def _offset(self, hidden_states: Tensor, call: AdapterCall) -> Tensor:
        with _precision_of(hidden_states):
            offset: Tensor = self.layer(hidden_states.float(), self.code)
        excess = (call.guidance_scale - 1)[:, None, None]
        if self.attached.adapter.config.scale_output:
            offset = offset * excess
        return torch.where(excess > 0, offset, 0.0) if call.off_at_one else offset


def _precision_of(hidden_states: Tensor) -> AbstractContextManager[Any]:
    """The adapter's float32 layers compute as the network does where that is in half precision."""
    if hidden_states.dtype in (torch.bfloat16, torch.float16):
        return torch.autocast(hidden_states.device.type, hidden_states.dtype)
    return nullcontext()


def _added(output: Tensor | tuple[Tensor, ...], offset: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Add to the attention output, the first of a joint attention's (image, text) pair."""
    if isinstance(output, tuple):
        return output[0] + offset.to(output[0].dtype), *output[1:]
    return output + offset.to(output.dtype)
