"""A ControlNet on edge maps for the emoji world's base: https://arxiv.org/abs/2302.05543, section 3.

A stock ControlNetModel with the base's widths and depth, but without attention, since a line says by itself where it
is; so it is a fifth as large as the base. Edges are computed from each step's pictures.
"""

import math
from collections.abc import Callable
from typing import Any

from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import UInt8
from torch import Tensor, nn

from agd_core.basics.checkpoint import Checkpoint
from agd_core.builtin.edge_maps import edge_maps
from agd_core.methods.training_loop import Loop
from agd_core.pretraining.capturing import Captured
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.diffusion_training import Examples, NoisyBatch, Predict, VelocityLoss, diffusion_loop
from agd_core.pretraining.emoji.frozen_base import prompted
from agd_core.pretraining.emoji.recipe import FineTuningRecipe

_HINT_CHANNELS = 16
_COPIED = ("in_channels", "block_out_channels", "layers_per_block", "norm_num_groups", "cross_attention_dim")


class ControlNetRecipe(FineTuningRecipe):
    """How the ControlNet is trained: the base is frozen, and half of the prompts are empty, as in the paper."""

    name: str = "emoji-sd-controlnet"
    learning_rate: float = 5e-4
    caption_dropout: float = 0.5
    """The paper's: so the network must read the edges themselves."""


def build_controlnet(unet: UNet2DConditionModel, pixels_per_latent: int) -> ControlNetModel:
    """A ControlNet that changes nothing yet; its encoder is the base's, where the base has no attention.

    Args:
        unet: the base's.
        pixels_per_latent: of the VAE, along a side; the embedding of the edges halves their sides as often.
    """
    halvings = int(math.log2(pixels_per_latent))
    controlnet = ControlNetModel(
        down_block_types=("DownBlock2D",) * len(unet.config.block_out_channels),
        mid_block_type="UNetMidBlock2D",
        conditioning_embedding_out_channels=tuple(_HINT_CHANNELS * 2**level for level in range(halvings + 1)),
        **{name: unet.config[name] for name in _COPIED},
    )
    own, base = controlnet.state_dict(), unet.state_dict()
    shared = {name: base[name] for name, tensor in own.items() if name in base and base[name].shape == tensor.shape}
    controlnet.load_state_dict(own | shared)
    return controlnet


class EdgeConditioned(nn.Module):
    """A UNet and the ControlNet that tells it edges, as one network."""

    def __init__(self, controlnet: ControlNetModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.controlnet, self.unet = controlnet, unet

    def forward(self, latents: Tensor, timesteps: Tensor, hidden: Tensor, edges: Tensor) -> Tensor:
        """Predicted v, `[batch, channels, height, width]`."""
        down, middle = self.controlnet(latents, timesteps, hidden, edges, return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        predicted: Tensor = self.unet(latents, timesteps, hidden, **residuals).sample
        return predicted


def with_edges(
    network: Callable[..., Tensor], base: StableDiffusionPipeline, pixels: UInt8[Tensor, "images height width 3"]
) -> Predict:
    """What an `EdgeConditioned` predicts when it is told the pictures' edges."""

    def predict(batch: NoisyBatch) -> Tensor:
        edges = edge_maps(pixels[batch.rows].to(base.device)).contiguous()
        return network(batch.latents, batch.timesteps, prompted(base, batch), edges)

    return predict


def controlnet_loop(
    ema: Ema,
    base: StableDiffusionPipeline,
    pixels: UInt8[Tensor, "images height width 3"],
    examples: Examples,
    recipe: ControlNetRecipe,
    checkpoint: Checkpoint,
) -> Loop:
    """The training run of a ControlNet.

    Args:
        ema: of the ControlNet, which is on the device of the base.
        base: frozen.
        pixels: the pictures, on the CPU.
        examples: the same pictures, for the base.
        recipe: of the training.
        checkpoint: where the state is saved.
    """
    controlnet: Any = ema.module
    predict = with_edges(Captured(EdgeConditioned(controlnet, base.unet)), base, pixels)
    loss = VelocityLoss(predict, examples, base.scheduler, recipe, base.device)
    return diffusion_loop(controlnet, ema, loss, recipe.steps, recipe, checkpoint)
