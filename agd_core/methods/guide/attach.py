"""Letting an external network's features into the second half of a network, with forward pre-hooks.

What enters a module has the features added, so a ControlNet of the user's own, whose residuals diffusers adds ahead of
that, adds up with a guide. The hooks are bound methods of objects: a deep copy of the network has a copy of the guide.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from torch import Tensor, nn

from agd_core.methods.attached import Attached, GuidedCall
from agd_core.models.backbones import Inlet

_HIDDEN, _SKIPS = "hidden_states", "res_hidden_states_tuple"
"""Arguments of diffusers' blocks; the first is what may be given by position."""
GuideFeatures = Sequence[Tensor]
"""One tensor per inlet, in its layout: `[batch, tokens, width]` or `[batch, width, *sides]`."""


class AttachedGuide(Attached):
    """A guide that hangs on a network.

    Args:
        network: it has the inlets.
        inlets: those of one module stand together.
        features: what the guide says of a call.

    Raises:
        AttributeError: the network has no module at one of the inlets.
    """

    def __init__(
        self, network: nn.Module, inlets: Sequence[Inlet], features: Callable[[GuidedCall], GuideFeatures]
    ) -> None:
        self._features = features
        self._joints: list[_Joint] = []
        numbered = sorted(enumerate(inlets), key=lambda each: each[1].path)
        for path, group in groupby(numbered, key=lambda each: each[1].path):
            self._joints.append(_Joint(self, path, dict(group)))
        self._handles = [
            network.get_submodule(joint.path).register_forward_pre_hook(joint.add, with_kwargs=True)
            for joint in self._joints
        ]

    def encode(self, call: GuidedCall) -> GuideFeatures:
        """The features of a call whose latents are known."""
        return self._features(call)

    def begin(self, call: GuidedCall | None) -> None:
        """Hand every module its features, where they are known already."""
        self.call = call
        for joint in self._joints:
            joint.take(None if call is None else call.codes)

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()


class _Joint:
    """One module, and the features that come in there."""

    def __init__(self, attached: AttachedGuide, path: str, inlets: dict[int, Inlet]) -> None:
        self.attached, self.path = attached, path
        self._numbers = {inlet.skip: number for number, inlet in inlets.items()}
        self.features: dict[int | None, Tensor] = {}
        """Of the call that runs now, by place among the skip connections; None: for the hidden states."""

    def take(self, features: GuideFeatures | None) -> None:
        """The features of the next call; None: there is none, or they are not known yet."""
        known = {} if features is None else {place: features[number] for place, number in self._numbers.items()}
        self.features = known

    def add(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Forward pre-hook: what enters the module, with the features added."""
        if (call := self.attached.call) is None:
            return None
        if not self.features:
            call.have_codes(self.attached.encode)
            self.attached.begin(call)
        if _SKIPS in kwargs:
            skips = tuple(self._added(skip, place) for place, skip in enumerate(kwargs[_SKIPS]))
            kwargs = kwargs | {_SKIPS: skips}
        if args:
            return (self._added(args[0], None), *args[1:]), kwargs
        return args, kwargs | {_HIDDEN: self._added(kwargs[_HIDDEN], None)}

    def _added(self, entering: Tensor, place: int | None) -> Tensor:
        return entering + self.features[place].to(entering.dtype) if place in self.features else entering
