"""The emoji world's text encoder and UNet, stock classes trained together on latents of the VAE.

Latent diffusion: https://arxiv.org/abs/2112.10752; v-prediction: https://arxiv.org/abs/2202.00512, appendix D;
classifier-free guidance needs a model that also knows the empty prompt: https://arxiv.org/abs/2207.12598.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.seeding import generator
from agd_core.data.order import batch_indices
from agd_core.methods.training_loop import Loop, LoopConfig
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.autoencoder import PictureLatents
from agd_core.pretraining.emoji.caption_tokens import CaptionTokens
from agd_core.pretraining.emoji.captions import PLAIN_SHARE
from agd_core.pretraining.emoji.recipe import DenoiserRecipe

UNET, TEXT_ENCODER = "unet", "text_encoder"


@dataclass(frozen=True)
class Examples:
    """What is learnt: the posterior of every picture, and its captions."""

    mean: PictureLatents
    std: PictureLatents
    captions: CaptionTokens


def build_denoiser(recipe: DenoiserRecipe, latent_shape: tuple[int, ...], tokenizer: Any) -> nn.ModuleDict:
    """The untrained text encoder and UNet, by name.

    Args:
        recipe: widths and depths.
        latent_shape: (channels, height, width).
        tokenizer: the text encoder reads its vocabulary and as many tokens as it makes.
    """
    return nn.ModuleDict({TEXT_ENCODER: _text_encoder(recipe, tokenizer), UNET: _unet(recipe, latent_shape)})


def _text_encoder(recipe: DenoiserRecipe, tokenizer: Any) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.text_width,
        intermediate_size=4 * recipe.text_width,
        projection_dim=recipe.text_width,
        num_hidden_layers=recipe.text_layers,
        num_attention_heads=recipe.text_width // recipe.head_width,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def _unet(recipe: DenoiserRecipe, latent_shape: tuple[int, ...]) -> UNet2DConditionModel:
    levels = len(recipe.unet_channels)
    return UNet2DConditionModel(
        sample_size=latent_shape[-1],
        in_channels=latent_shape[0],
        out_channels=latent_shape[0],
        block_out_channels=recipe.unet_channels,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        layers_per_block=recipe.layers_per_block,
        # so diffusers calls the number of heads: https://github.com/huggingface/diffusers/issues/2011
        attention_head_dim=tuple(width // recipe.head_width for width in recipe.unet_channels),
        cross_attention_dim=recipe.text_width,
        norm_num_groups=16,
        use_linear_projection=True,
    )


def training_scheduler() -> DDIMScheduler:
    """Stable Diffusion's schedule, noisier at its end; trailing spacing starts few-step sampling from pure noise.

    With Stable Diffusion's own last beta, 0.012, 7 % of the latents' amplitude is left at the end, and small latents,
    whose neighbours say little about each other, would be made from noise that the network knows as hidden pictures.
    With 0.02 it is 1.6 %, and every sampler can walk it, which none could from exactly zero with epsilon.
    """
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        timestep_spacing="trailing",
        steps_offset=1,
    )


def denoiser_loop(
    model: nn.ModuleDict, ema: Ema, examples: Examples, recipe: DenoiserRecipe, checkpoint: Checkpoint
) -> Loop:
    """The training run of the text encoder and the UNet, on the device of the model."""
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, (0.9, 0.99), weight_decay=0.0, fused=True)
    config = LoopConfig(
        recipe.epochs * len(examples.mean) // recipe.batch_size,
        recipe.learning_rate,
        warmup_fraction=0.02,
        max_gradient_norm=1.0,
        checkpoint_seconds=recipe.checkpoint_seconds,
    )
    loss_at = _Loss(model, examples, recipe).at
    modules = {"denoiser": model, "ema": ema.average}
    return Loop(config, modules, optimizer, loss_at, checkpoint, after_step=ema.update)


class _Loss:
    """Mean squared error of the predicted v, at one random noise level per picture."""

    def __init__(self, model: nn.ModuleDict, examples: Examples, recipe: DenoiserRecipe) -> None:
        self._model, self._examples, self._recipe = model, examples, recipe
        self._scheduler = training_scheduler()

    def at(self, step: int) -> Tensor:
        """The loss of a step."""
        recipe, device = self._recipe, next(self._model.parameters()).device
        rows = batch_indices(len(self._examples.mean), recipe.batch_size, recipe.seed, step)
        rng = generator(recipe.seed, "diffusion", step)
        tokens = self._examples.captions.draw(rows, PLAIN_SHARE, recipe.caption_dropout, rng)
        noisy, timesteps, velocity = (part.to(device) for part in self._noisy(rows, rng))
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            hidden = self._model[TEXT_ENCODER](tokens.to(device)).last_hidden_state
            predicted = self._model[UNET](noisy, timesteps, hidden).sample
        return torch.nn.functional.mse_loss(predicted.float(), velocity)

    def _noisy(self, rows: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents of some pictures, their timesteps and what is to be predicted."""
        mean, std = self._examples.mean[rows], self._examples.std[rows]
        sampling, noise = torch.randn(2, *mean.shape, generator=rng)
        latents = mean + std * sampling
        timesteps = torch.randint(0, self._scheduler.config.num_train_timesteps, (len(rows),), generator=rng)
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        return noisy, timesteps, self._scheduler.get_velocity(latents, noise, timesteps)
