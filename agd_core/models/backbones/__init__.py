"""Classes of denoising networks. A new one is one file here plus one line in `_KINDS`."""

from typing import Any

from torch import nn

from agd_core.basics.errors import InputError
from agd_core.models.backbones.base import NULL, AdapterSite, Backbone, Inlet, NetworkCall
from agd_core.models.backbones.dit import DiTBackbone
from agd_core.models.backbones.pixart import PixArtBackbone
from agd_core.models.backbones.sd3 import SD3Backbone
from agd_core.models.backbones.unet import UNetBackbone

_KINDS: tuple[type[Backbone], ...] = (
    DiTBackbone,
    UNetBackbone,
    SD3Backbone,
    PixArtBackbone,
)
BACKBONES = {kind.class_name: kind for kind in _KINDS}
"""By the network's class in diffusers."""


def backbone_class(name: str) -> type[Backbone]:
    """What is known of a class of diffusers' networks.

    Raises:
        InputError: nothing.
    """
    if name not in BACKBONES:
        raise InputError(f"no adapters for networks of class {name}; known: {', '.join(BACKBONES)}")
    return BACKBONES[name]


def backbone_of(network: nn.Module | Any) -> Backbone:
    """The backbone of one of diffusers' networks.

    Raises:
        InputError: no adapter is known for this class of networks.
    """
    return backbone_class(type(network).__name__)(network)


__all__ = ["BACKBONES", "NULL", "AdapterSite", "Backbone", "Inlet", "NetworkCall", "backbone_class", "backbone_of"]
