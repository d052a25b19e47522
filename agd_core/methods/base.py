"""What every method of folding guidance into one network pass has: settings, what it trains, a student.

A method is one file: a configuration, and what it builds. Training, sampling, measuring and reporting see `Trained` and
`Denoiser` alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from agd_core.basics.config import NOT_IDENTITY, Config
from agd_core.basics.errors import InputError
from agd_core.methods.attached import Attached, Student
from agd_core.methods.own_training import OwnTraining
from agd_core.models.ask import Ask
from agd_core.models.backbones import AdapterSite, Backbone
from agd_core.models.denoiser import Denoiser, Latents, PerRow, Prediction
from agd_core.models.model import BaseModel


@dataclass(frozen=True)
class Pairs:
    """A batch of stored pairs: what the network received, and what the guided teacher answered."""

    latents: Latents
    timestep: PerRow
    ask: Ask
    guided: Prediction


class MethodConfig(Config, ABC):
    """Settings that every method has; `kind` and the rest come from the method's own file."""

    about: ClassVar[str]
    """What it does, in one sentence of Markdown with its source, for model cards."""

    tags: ClassVar[tuple[str, ...]] = ()
    """Of the method on the Hugging Face hub."""

    in_pipelines: ClassVar[bool] = True
    """Whether `agd_core.load_adapter` takes what it trains."""

    relation: ClassVar[Literal["adapter", "finetune"]] = "adapter"
    """What the Hugging Face hub calls what is trained, of the base model."""

    kind: str
    name: str | None = Field(None, pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64, json_schema_extra=NOT_IDENTITY)
    """How reports call what is trained, and its folder's name; its kind where not given."""
    train: OwnTraining | None = Field(None, json_schema_extra=NOT_IDENTITY, exclude_if=lambda own: own is None)
    """Where its training differs from `train`, such as {steps: 900}; it is no part of what the method is."""

    @property
    def label(self) -> str:
        """The name, or the kind where no name is given."""
        return self.name or self.kind

    @abstractmethod
    def build(self, backbone: Backbone, seed: int = 0) -> "Trained":
        """What is trained, before training; equal seeds give equal weights.

        Args:
            backbone: the network, maybe on the meta device: its shapes are read, and its weights by a method alone that
                starts from them.
            seed: of the initial weights.

        Raises:
            InputError: this network is none that the method knows.
        """

    def everywhere(self) -> "MethodConfig":
        """The same method with its own network in rows of every guidance scale, which no fake tensor tells."""
        return self

    def check_class(self, kind: type[Backbone]) -> None:
        """Know of a class of networks whether the method can work with it; here any.

        Raises:
            InputError: it cannot.
        """

    def check(self, backbone: Backbone) -> None:
        """Build it without memory, to know before long work that it can be.

        Raises:
            InputError: as `check_class` and `build`.
        """
        self.check_class(type(backbone))
        with torch.device("meta"):
            self.build(backbone)


class Trained(nn.Module):
    """What a method trains and saves: its state dict is the file, float32 whatever the base runs in.

    The base's weights are frozen; whatever a method trains, a copy of the network too, is a parameter of this module.
    A method has its own `attach`, then it also works in stock pipelines, or its own `installed`.
    """

    sites: tuple[AdapterSite, ...] = ()
    """The network's modules that it hangs on."""

    def __init__(self, config: MethodConfig) -> None:
        super().__init__()
        self.config = config

    def attach(self, network: nn.Module) -> Attached:
        """Hang on a network, inert until a call begins; this is how a stock pipeline uses it.

        Raises:
            InputError: the method is none that stock pipelines can use, or the network lacks a site.
        """
        raise InputError(f"{self.config.kind} does not work in stock pipelines; agd_core.load_student samples with it")

    def runs_in(self, model: BaseModel) -> BaseModel:
        """The model in whose network the student runs: the base itself, unless the method has a network of its own."""
        return model

    @contextmanager
    def installed(self, model: BaseModel, checkpointing: bool = False) -> Iterator[Denoiser]:
        """The student inside the block; asked by itself, the model is the base all the time, bit for bit.

        Args:
            model: the base, on whose device this module is.
            checkpointing: keep no activations for the backward pass and compute them again there.
        """
        run = self.runs_in(model)
        network: Any = run.network
        attached = self.attach(network)
        try:
            if checkpointing:
                network.enable_gradient_checkpointing(attached.checkpointed)
            yield Student(run, attached)
        finally:
            if checkpointing:
                network.disable_gradient_checkpointing()
            attached.detach()

    def loss(self, student: Denoiser, batch: Pairs) -> Tensor:
        """What training makes small: the mean squared distance to the guided prediction (AGD, Algorithm 2)."""
        prediction = student.predict(batch.latents, batch.timestep, batch.ask)
        return nn.functional.mse_loss(prediction, batch.guided)

    def parameter_count(self) -> int:
        """Trainable parameters."""
        return sum(p.numel() for p in self.parameters())
