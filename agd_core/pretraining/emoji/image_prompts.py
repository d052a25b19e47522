"""How the emoji world's IP-Adapter learns: pictures, a little moved, as prompts for themselves."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.seeding import generator
from agd_core.data.order import batch_indices
from agd_core.evaluation.extractors.preprocessing import normalised
from agd_core.methods.training_loop import Loop
from agd_core.pretraining.capturing import Captured
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.autoencoder import PictureLatents
from agd_core.pretraining.emoji.diffusion_training import (
    Examples,
    NoisyBatch,
    Predict,
    StepLoss,
    VelocityLoss,
    diffusion_loop,
)
from agd_core.pretraining.emoji.frozen_base import prompted
from agd_core.pretraining.emoji.ip_adapter import ENCODER, TOLD, IpAdapterRecipe
from agd_core.pretraining.emoji.shifting import shifted


class ImagePrompts:
    """Embeddings of pictures, as stock pipelines make them of an image prompt.

    Args:
        adapter: the parts of an IP-Adapter.
        pixels: on the CPU.
        recipe: of the training.
        device: of the adapter.
    """

    def __init__(
        self,
        adapter: Any,
        pixels: UInt8[Tensor, "images height width 3"],
        recipe: IpAdapterRecipe,
        device: torch.device,
    ) -> None:
        self.adapter, self.recipe, self.device = adapter, recipe, device
        self._pixels = pixels

    def embedded(self, rows: Tensor, step: int, dropped: float) -> Float[Tensor, "batch features"]:
        """Of some pictures, moved by a step's own random numbers; a part of them is dropped, which zeros say."""
        rng = generator(self.recipe.seed, "image prompts", step)
        moved = shifted(self._pixels[rows], self.recipe.shift_pixels, rng).to(self.device)
        kept = torch.rand(len(rows), 1, generator=rng).to(self.device) >= dropped
        embedding: Tensor = self.adapter[ENCODER](normalised(moved, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)).image_embeds
        return embedding * kept


class ImageConditioned(nn.Module):
    """A UNet that holds an IP-Adapter, with embeddings of image prompts among its inputs."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, timesteps: Tensor, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """Predicted v, `[batch, channels, height, width]`."""
        more = {"image_embeds": [embeddings[:, None]]}
        predicted: Tensor = self.unet(latents, timesteps, hidden, added_cond_kwargs=more).sample
        return predicted


def with_image_prompts(
    network: Callable[..., Tensor], base: StableDiffusionPipeline, prompts: ImagePrompts, dropped: float
) -> Predict:
    """What an `ImageConditioned` predicts when pictures are their own image prompts."""

    def predict(batch: NoisyBatch) -> Tensor:
        embeddings = prompts.embedded(batch.rows, batch.step, dropped)
        return network(batch.latents, batch.timesteps, prompted(base, batch), embeddings)

    return predict


def ip_adapter_loop(
    ema: Ema, base: StableDiffusionPipeline, prompts: ImagePrompts, examples: Examples, checkpoint: Checkpoint
) -> Loop:
    """The training run of an IP-Adapter.

    Args:
        ema: of the adapter, which is part of the base.
        base: frozen but for the adapter.
        prompts: the pictures.
        examples: the same pictures, for the base.
        checkpoint: where the state is saved.
    """
    recipe = prompts.recipe
    predict = with_image_prompts(Captured(ImageConditioned(base.unet)), base, prompts, recipe.image_dropout)
    velocity = VelocityLoss(predict, examples, base.scheduler, recipe, base.device)
    loss = _Loss(velocity, prompts, examples.mean)
    return diffusion_loop(ema.module, ema, loss, recipe.steps, recipe, checkpoint)


class _Loss(StepLoss):
    """Error of the predicted v, and of the latents that embeddings tell by a linear map."""

    def __init__(self, velocity: VelocityLoss, prompts: ImagePrompts, latents: PictureLatents) -> None:
        self._velocity, self._prompts, self._latents = velocity, prompts, latents

    def at(self, step: int) -> Tensor:
        return self._velocity.at(step) + self._prompts.recipe.latents_weight * self._told(step)

    def prepare(self, step: int) -> None:
        self._velocity.prepare(step)

    def _told(self, step: int) -> Tensor:
        recipe, device = self._prompts.recipe, self._prompts.device
        rows = batch_indices(len(self._latents), recipe.batch_size, recipe.seed, step)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16", cache_enabled=False):
            told = self._prompts.adapter[TOLD](self._prompts.embedded(rows, step, dropped=0.0))
        return mse_loss(told.float(), self._latents[rows].flatten(1).to(device))
