"""The student: a frozen base model with adapters, one network evaluation per prediction."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor

from agd_core.adapters import Adapter, AdapterInputs, AttachedAdapter
from agd_core.ask import Ask
from agd_core.base_models.base import BaseModel
from agd_core.denoiser import Latents, PerRow, Prediction
from agd_core.errors import InputError


class Student:
    """A `Denoiser` that gives the guided prediction in one pass while an adapter is active.

    Several adapters may be added under names; at most one is active. With none active it is the base
    model itself. As a context manager it detaches all of them at the end.
    """

    def __init__(self, base_model: BaseModel) -> None:
        self.base_model = base_model
        self._attached: dict[str, AttachedAdapter] = {}
        self._active: AttachedAdapter | None = None

    @property
    def network_evaluations(self) -> int:
        """Rows that went through the base network so far."""
        return self.base_model.network_evaluations

    @property
    def adapters(self) -> dict[str, Adapter]:
        """Every added adapter by name."""
        return {name: attached.adapter for name, attached in self._attached.items()}

    def add(self, name: str, adapter: Adapter) -> None:
        """Attach an adapter under a new name and make it the active one.

        Raises:
            InputError: the name is taken.
        """
        if name in self._attached:
            raise InputError(f"adapter {name!r} is already loaded; remove it first or choose another name")
        adapter.to(self.base_model.device)
        self._attached[name] = self._active = AttachedAdapter(self.base_model.network, adapter)

    def activate(self, name: str | None) -> None:
        """Make one adapter the active one; None turns all of them off.

        Raises:
            InputError: no adapter of that name.
        """
        if name is not None and name not in self._attached:
            raise InputError(f"no adapter {name!r}; loaded: {', '.join(self._attached) or 'none'}")
        self._active = self._attached[name] if name is not None else None

    def remove(self, name: str) -> None:
        """Detach an adapter; the base model is left as it was, bit for bit."""
        attached = self._attached.pop(name)
        attached.detach()
        if self._active is attached:
            self._active = None

    @contextmanager
    def checkpointing(self) -> Iterator[None]:
        """Inside the block, the network keeps no activations for the backward pass and computes them again there.

        Raises:
            InputError: no adapter is active.
        """
        if self._active is None:
            raise InputError("activation checkpointing is for training, but no adapter is active")
        network: Any = self.base_model.network
        network.enable_gradient_checkpointing(self._active.checkpointed)
        try:
            yield
        finally:
            network.disable_gradient_checkpointing()

    def __enter__(self) -> "Student":
        return self

    def __exit__(self, *exception: object) -> None:
        """Detach every adapter."""
        for name in list(self._attached):
            self.remove(name)

    def predict(self, latents: Latents, timestep: PerRow, ask: Ask) -> Prediction:
        """The prediction at this guidance scale, in one network evaluation per row."""
        if self._active is None:
            return self.base_model.predict(latents, timestep, ask)
        with self._active.active(self._inputs(timestep, ask)):
            return self.base_model.predict(latents, timestep, ask)

    def _inputs(self, timestep: PerRow, ask: Ask) -> AdapterInputs:
        time_features: Float[Tensor, "batch time_width"] = self.base_model.backbone.embed_timestep(timestep)
        return AdapterInputs(ask.guidance_scale, time_features, self.base_model.backbone.embed_condition(ask.condition))
