"""A method that hangs on a network and acts on single calls of it; nothing of the network is replaced."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from agd_core.models.ask import Ask
from agd_core.models.backbones import Backbone
from agd_core.models.denoiser import Answer, Denoiser, Latents, PerRow, Prediction
from agd_core.models.model import BaseModel


@dataclass
class GuidedCall:
    """A network call that a method acts on, while it runs."""

    backbone: Backbone
    timestep: Tensor
    """`[batch]`; for a sampler's steps all of theirs, see `Attached.steps`."""
    ask: Ask
    off_at_one: bool = False
    """Add nothing in rows whose guidance scale is at most 1."""
    latents: Tensor | None = None
    """`[batch, channels, *sides]`, what the network is given; None while a sampler's steps are prepared ahead."""
    codes: Any = None
    """What the method has made of the call; the backward pass of a checkpointed network needs it again."""

    def have_codes(self, encode: Callable[["GuidedCall"], Any]) -> None:
        """Let the method encode the call, once."""
        if self.codes is None:
            self.codes = encode(self)


class Attached(ABC):
    """What hangs on a network: inert unless a call is active, so the network used by itself is the base, bit for bit.

    It holds no reference to the network: a deep copy of the network has a copy of it.
    """

    call: GuidedCall | None = None
    """The call that runs now; None: it is inert."""

    def begin(self, call: GuidedCall | None) -> None:
        """Act on this call until the next `begin`, on none with None.

        Raises:
            InputError: the call asks for what was not trained.
        """
        self.call = call

    @abstractmethod
    def detach(self) -> None:
        """Leave the network as it was."""

    def encode(self, call: GuidedCall) -> Any:
        """The `codes` of a call; where nobody asks before the network runs, the method does so inside of it.

        The weights of an offloaded network are at hand only there.
        """
        return None

    def steps(self, call: GuidedCall) -> Iterator[GuidedCall]:
        """The calls of a sampler's steps, of which each is over before the next is taken.

        Args:
            call: all of them in one; its timestep `[steps]` are theirs, which all rows share.
        """
        for timestep in call.timestep:
            yield replace(call, timestep=timestep.expand(len(call.ask)))

    @contextmanager
    def during(self, call: GuidedCall | None) -> Iterator[None]:
        """Act on every network call inside the block, which is encoded at once."""
        before = self.call
        if call is not None:
            call.have_codes(self.encode)
        self.begin(call)
        try:
            yield
        finally:
            self.begin(before)

    def checkpointed(self, module: Callable[..., Any], *args: Any) -> Any:
        """Run a part of the network now and once more in the backward pass, instead of keeping its activations.

        For `network.enable_gradient_checkpointing(attached.checkpointed)`. The backward pass runs when the call is long
        over; the method then acts as it did in the call.
        """
        call = self.call

        def run(*args: Any) -> Any:
            with self.during(call):
                return module(*args)

        return checkpoint(run, *args, use_reentrant=False)


class Student(Denoiser):
    """A `Denoiser`: the base model with what acts on its network, one network evaluation per prediction."""

    def __init__(self, base_model: BaseModel, attached: Attached) -> None:
        self.base_model = base_model
        self._attached = attached

    @property
    def network_evaluations(self) -> int:
        """Rows that went through the base network so far."""
        return self.base_model.network_evaluations

    def predict(self, latents: Latents, timestep: PerRow, ask: Ask) -> Prediction:
        """The prediction at this guidance scale, in one network evaluation per row."""
        return self._answer(latents, GuidedCall(self.base_model.backbone, timestep, ask))

    def steps(self, timesteps: Float[Tensor, " steps"], ask: Ask) -> Iterator[Answer]:
        """The same; what does not depend on the latents is computed before the first step."""
        for call in self._attached.steps(GuidedCall(self.base_model.backbone, timesteps, ask)):
            yield partial(self._answer, call=call)

    def _answer(self, latents: Latents, call: GuidedCall) -> Prediction:
        with self._attached.during(replace(call, latents=latents)):
            return self.base_model.predict(latents, call.timestep, call.ask)
