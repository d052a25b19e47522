"""guide-full: a trainable copy of the base's first half beside the frozen base, as a ControlNet has it.

On a UNet it is diffusers' `ControlNetModel` of that UNet, whose control image is the guidance scale at every pixel, as
in the re-implementation of DICE's authors (github.com/zju-pi/dice): 361,279,120 parameters for Stable Diffusion 1.5;
the paper's own layout was not published. On a transformer it is ours: copies of the first half of the blocks, which run
on the base's own tokens and know the guidance scale by an offset to them; copy i joins block i of the later half.
"""

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agd_core.basics.errors import InputError, first_line
from agd_core.methods.agd.encoders import ScaleEncoder
from agd_core.methods.attached import GuidedCall
from agd_core.methods.guide.base import GuideConfig, GuideNetwork
from agd_core.models.backbones import Backbone, NetworkCall
from agd_core.models.backbones.unet import UNetBackbone
from agd_core.models.denoiser import rowwise

_MAP_CHANNELS, _MAP_FACTOR = 3, 8
"""Of a ControlNet's control image: its channels, and its pixels per latent element and side."""
_CODE_WIDTH, _CODE_FREQUENCY = 256, 0.1
"""Of the guidance scale's encoder on transformers."""


class FullGuideConfig(GuideConfig):
    """A copy of the base's first half; it has no sizes of its own to choose."""

    kind: Literal["guide-full"] = "guide-full"

    def build_network(self, backbone: Backbone) -> GuideNetwork:
        """A ControlNet on a UNet, copies of blocks on a transformer; both begin with the base's weights."""
        return ControlNetGuide(backbone) if isinstance(backbone, UNetBackbone) else BlocksGuide(backbone)


class ControlNetGuide(GuideNetwork):
    """diffusers' ControlNet of a UNet; its zero convolutions begin at zero."""

    def __init__(self, backbone: UNetBackbone) -> None:
        super().__init__()
        self.controlnet = _controlnet_of(backbone).eval()
        self._channels = backbone.latent_channels
        _take_over(self.controlnet, backbone.network)

    def recompute(self, shall: bool) -> None:
        """By diffusers' own switch."""
        (self.controlnet.enable_gradient_checkpointing if shall else self.controlnet.disable_gradient_checkpointing)()

    def forward(self, call: GuidedCall, latents: Tensor) -> Sequence[Tensor]:
        """`[batch, width, *sides]` for every skip connection, then for the middle."""
        sides = [_MAP_FACTOR * side for side in latents.shape[2:]]
        image = rowwise(call.ask.guidance_scale, latents).expand(-1, _MAP_CHANNELS, *sides)
        backbone: Any = call.backbone
        down, middle = self.controlnet(
            latents[:, : self._channels],
            call.timestep,
            controlnet_cond=image,
            return_dict=False,
            **backbone.prompt_arguments(call.ask.condition),
        )
        return [*down, middle]


class BlocksGuide(GuideNetwork):
    """Copies of a transformer's first blocks, as many as its later half has, each with a projection that is zero."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        widths = [inlet.width for inlet in backbone.inlets]
        self.scale = nn.Sequential(ScaleEncoder(_CODE_WIDTH, _CODE_FREQUENCY), nn.Linear(_CODE_WIDTH, widths[0]))
        self.transformer_blocks = _first_blocks(backbone, len(widths)).eval()
        self.heads = nn.ModuleList(nn.Linear(width, width) for width in widths)
        for linear in (self.scale[-1], *self.heads):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        _take_over(self, backbone.network)

    def forward(self, call: GuidedCall, latents: Tensor) -> Sequence[Tensor]:
        """`[batch, tokens, width]` for every block of the later half."""
        blocks: list[Callable[..., Any]] = list(self.transformer_blocks)
        if self.recomputes:
            blocks = [partial(checkpoint, block, use_reentrant=False) for block in self.transformer_blocks]
        asked, offset = NetworkCall(latents, call.timestep, call.ask.condition), self.scale(call.ask.guidance_scale)
        tokens = call.backbone.through(blocks, asked, offset[:, None])
        return [head(each) for head, each in zip(self.heads, tokens, strict=True)]


def _controlnet_of(backbone: UNetBackbone) -> Any:
    """A ControlNet of this UNet's shape; of an inpainting sibling's as if it took latents alone.

    diffusers makes it of a configuration, here without what an IP-Adapter writes into that.
    """
    from diffusers import ControlNetModel
    from diffusers.configuration_utils import FrozenDict

    config = dict(backbone.network.config) | {"in_channels": backbone.latent_channels, "encoder_hid_dim_type": None}
    shape: Any = SimpleNamespace(config=FrozenDict(config))
    try:
        controlnet = ControlNetModel.from_unet(shape, load_weights_from_unet=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"methods: guide-full fits no UNet like this one: {first_line(error)}") from error
    heads = [*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]
    if (found := [head.out_channels for head in heads]) != (known := [inlet.width for inlet in backbone.inlets]):
        raise InputError(f"methods: guide-full fits no UNet like this one: its features {found}, the UNet's {known}")
    return controlnet


def _first_blocks(backbone: Backbone, count: int) -> nn.ModuleList:
    """So many blocks of the network's shape, whatever hangs on its own; their weights are left open.

    Nobody reads the prompt's tokens behind the last one, so it lacks what makes them.
    """
    network = backbone.network
    with torch.device("meta"):
        whole = type(network).from_config(network.config)
    blocks = nn.ModuleList(whole.transformer_blocks[:count])
    for path in [path for path, _ in blocks[-1].named_modules()]:
        if path in backbone.other_stream:
            blocks[-1].set_submodule(path, nn.Identity())
    for module in blocks.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, nn.Parameter(torch.empty(parameter.shape)))
    return blocks


@torch.no_grad()
def _take_over(guide: nn.Module, network: nn.Module) -> None:
    """Give what has its name in the network the network's weights, where there are any."""
    own = dict(network.named_parameters())
    for name, parameter in guide.named_parameters():
        if name in own and not parameter.is_meta and not own[name].is_meta:
            parameter.copy_(own[name])
