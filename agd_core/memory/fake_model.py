"""A base model of shapes alone, on which the real guidance, students and losses run."""

from typing import Any

import torch

from agd_core.memory.sized import Sized
from agd_core.models.backbones import backbone_of
from agd_core.models.model import BaseModel


class FakeModel(BaseModel):
    """A model at a size around a network without weights; there is nothing to load, so nothing else is set."""

    def __init__(self, sized: Sized, network: Any) -> None:
        self.backbone = backbone_of(network)
        self.latent_shape = sized.latent_shape
        self.scheduler_config = {}
        self.prediction_channels = sized.slots * sized.latent_shape[0]
        self.device = torch.device("cpu")
        self.dtype = sized.dtype
