"""The adapters of one network, and the two hooks through which every pipeline of that network reaches them."""

import sys
import threading
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from agd_core.basics.errors import InputError
from agd_core.methods import Trained
from agd_core.methods.attached import Attached, GuidedCall
from agd_core.models.ask import UNKNOWN, Ask
from agd_core.models.backbones import NetworkCall, backbone_of
from agd_core.models.doors.doors import Limits
from agd_core.models.doors.running_call import FOR_CFG
from agd_core.pipelines.upcoming_steps import UpcomingSteps

_TURNS = threading.Condition()
"""For all networks, and not in `NetworkAdapters`: a lock cannot be copied."""
_LOOK_AGAIN_SECONDS = 0.05


class NetworkAdapters:
    """Loaded adapters by name, of which one is active while they are enabled.

    Its hooks are bound methods and hold no reference to a pipeline or to the network: a deep copy of the network has a
    copy of everything here, pipelines that share the network share it, and the network's own state dict and files do
    not know of it. They are also how it is found again, see `find`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._door = backbone_of(network).door
        self._loaded: dict[str, tuple[Trained, Attached, Limits]] = {}
        self._active: str | None = None
        self.enabled = False
        """Whether pipelines are guided by the active adapter, if there is one."""
        self._guiding = False
        self._upcoming = UpcomingSteps()
        self._thread: int | None = None
        """The thread whose call runs."""
        self._handles: list[RemovableHandle] = []

    @staticmethod
    def find(network: nn.Module) -> "NetworkAdapters | None":
        """Those of a network, None where nothing is loaded."""
        owners = (getattr(hook, "__self__", None) for hook in network._forward_pre_hooks.values())
        return next((owner for owner in owners if isinstance(owner, NetworkAdapters)), None)

    @property
    def active(self) -> str | None:
        """The adapter that guides while adapters are enabled."""
        return self._active

    @property
    def limits(self) -> Limits:
        """What calls must keep to while the active adapter guides.

        Raises:
            InputError: there is no active one.
        """
        if self._active is None:
            raise InputError("no adapter of this pipeline is active; agd_core.set_active(pipe, name) chooses one")
        return self._loaded[self._active][-1]

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that is loaded."""
        return tuple(self._loaded)

    def add(self, network: nn.Module, trained: Trained, limits: Limits) -> None:
        """Attach an adapter under a name that is free (`limits` has it), active and enabled.

        Raises:
            InputError: the network's pipelines cannot be guided, or not by this method.
        """
        attached = trained.attach(network)
        try:
            self._settle(network, limits.adapter, True)
        except InputError:
            attached.detach()
            raise
        self._loaded[limits.adapter] = trained, attached, limits
        self._handles = self._handles or [
            network.register_forward_pre_hook(self.before, with_kwargs=True, prepend=True),  # ahead of a method's own
            network.register_forward_hook(self.after, with_kwargs=True, always_call=True),
        ]

    def set_active(self, network: nn.Module, name: str) -> None:
        """Let this adapter guide, where adapters are enabled.

        Raises:
            InputError: no adapter of that name.
        """
        self._require(name)
        self._settle(network, name, self.enabled)

    def set_enabled(self, network: nn.Module, enabled: bool) -> None:
        """Guide by the active adapter, or leave the pipelines their own CFG, bit for bit.

        Raises:
            InputError: there is no active one.
        """
        if enabled and self._active is None:
            raise InputError(
                f"no adapter is active; agd_core.set_active(pipe, name), loaded: {', '.join(self._loaded)}"
            )
        self._settle(network, self._active, enabled)

    def _settle(self, network: nn.Module, active: str | None, enabled: bool) -> None:
        was, shall = self.enabled and self._active is not None, enabled and active is not None
        if shall:
            self._door.open(network)
        elif was:
            self._door.close(network)
        self._active, self.enabled = active, enabled
        self._upcoming.forget()

    def remove(self, network: nn.Module, name: str) -> None:
        """Take an adapter off; with the last one the network is as it was.

        Raises:
            InputError: no adapter of that name.
        """
        self._require(name)
        self._loaded.pop(name)[1].detach()
        if self._active == name:
            self._settle(network, None, self.enabled)
        if not self._loaded:
            for handle in self._handles:
                handle.remove()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def before(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Forward pre-hook of the network: let the active adapter act on a guided call."""
        if not self.enabled or self._active is None:
            self._end()  # a call that Ctrl-C ended has not come to `after`
            return None
        self._take_turn(network)
        self._end()
        trained, attached, limits = self._loaded[self._active]
        backbone = backbone_of(network)
        latents = _check_rows(backbone.read_call(args, kwargs), self._active).latents
        passage = self._door.enter(latents, args, kwargs, limits)
        if passage.guidance_scale is not None:
            _follow(trained, latents.device)
            call = backbone.read_call(passage.args, passage.kwargs)
            ask = Ask(call.condition, UNKNOWN, passage.guidance_scale)
            guided = GuidedCall(backbone, call.timestep, ask, passage.off_at_one, call.latents)
            if not _is_offloaded(network):
                self._upcoming.encode(attached, guided, backbone.named(passage.args, passage.kwargs)["timestep"])
            attached.begin(guided)
            self._guiding = True
        return passage.args, passage.kwargs

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def after(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Forward hook of the network, called after an error too (then without output)."""
        if self._thread != get_ident():
            return None
        guided = self._guiding
        self._end()
        with _TURNS:
            self._thread = None
            _TURNS.notify_all()
        return self._door.leave(output) if guided and output is not None else None

    def _take_turn(self, network: nn.Module) -> None:
        """Wait until no other thread is inside the network: its hooks can serve one call at a time."""
        with _TURNS:
            while self._thread not in (None, get_ident()) and _is_inside(self._thread, network):
                _TURNS.wait(_LOOK_AGAIN_SECONDS)
            self._thread = get_ident()

    def _end(self) -> None:
        """No adapter acts any more."""
        self._guiding = False
        for _, attached, _ in self._loaded.values():
            attached.begin(None)

    def _require(self, name: str) -> None:
        if name not in self._loaded:
            raise InputError(f"no adapter {name!r} in this pipeline; loaded: {', '.join(self._loaded) or 'none'}")


def _check_rows(call: NetworkCall, adapter: str) -> NetworkCall:
    """Latents and condition have the same rows, which a callback of the pipeline can spoil."""
    images = len(call.latents)
    for name, tensor in call.condition.tensors().items():
        if (rows := len(tensor)) != images:
            reason = (
                "prompt_embeds and the like hold no unconditional half that a callback could take away"
                if rows < images
                else "a callback must leave as many rows of both"
            )
            raise InputError(
                f"the network is given {rows} rows of {name} for {images} of latents: while adapter {adapter!r} is "
                f"enabled {reason}; {FOR_CFG}"
            )
    return call


def _is_inside(thread: int | None, network: nn.Module) -> bool:
    """Whether a thread is in a call of the network now; one that Ctrl-C ended is not."""
    frame = sys._current_frames().get(thread or 0)
    while frame is not None:
        if frame.f_code.co_name == "_call_impl" and frame.f_locals.get("self") is network:
            return True
        frame = frame.f_back
    return False


def _is_offloaded(network: nn.Module) -> bool:
    """Whether its weights may be at hand inside its own forward only."""
    return hasattr(network, "_hf_hook") or hasattr(network, "_diffusers_hook")


def _follow(trained: Trained, device: torch.device) -> None:
    """Adapters are no part of the network that a pipeline moves, so they go where its latents are."""
    if next(trained.parameters()).device != device:
        trained.to(device)
