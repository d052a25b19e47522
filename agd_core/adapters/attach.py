"""Attaching an adapter to a base network with forward hooks; nothing of the network is replaced.

The hooks are inert unless a call is active, so the base network used by itself is the base network, bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from agd_core.adapters.base import Adapter, AdapterInputs, Codes
from agd_core.denoiser import PerRow


@dataclass(frozen=True)
class _Call:
    """The network call that is running now."""

    codes: list[Codes]
    guidance_scale: PerRow


class AttachedAdapter:
    """An adapter whose layers hang on a network's attention modules.

    Raises:
        AttributeError: the network has no module at one of the adapter's sites.
    """

    def __init__(self, network: nn.Module, adapter: Adapter) -> None:
        self.adapter = adapter
        self._call: _Call | None = None
        self._handles = [self._hook(network.get_submodule(site.path), i) for i, site in enumerate(adapter.sites)]

    @contextmanager
    def active(self, inputs: AdapterInputs) -> Iterator[None]:
        """Let the adapter act on every network call inside the block."""
        self._call = _Call(self.adapter.encode(inputs), inputs.guidance_scale)
        try:
            yield
        finally:
            self._call = None

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, site: nn.Module, index: int) -> RemovableHandle:
        def add_offset(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if self._call is None:
                return None
            hidden_states = args[0] if args else kwargs["hidden_states"]
            offset = self.adapter.offset(index, hidden_states, self._call.codes[index], self._call.guidance_scale)
            return _added(output, offset)

        return site.register_forward_hook(add_offset, with_kwargs=True)


def _added(output: Tensor | tuple[Tensor, ...], offset: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Add to the attention output, the first of a joint attention's (image, text) pair."""
    if isinstance(output, tuple):
        return output[0] + offset.to(output[0].dtype), *output[1:]
    return output + offset.to(output.dtype)
