"""The emoji world's text encoder and UNet, stock classes trained together on latents of the VAE.

Latent diffusion: https://arxiv.org/abs/2112.10752; v-prediction: https://arxiv.org/abs/2202.00512, appendix D;
classifier-free guidance needs a model that also knows the empty prompt: https://arxiv.org/abs/2207.12598.
"""

from typing import Any

from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from agd_core.basics.checkpoint import Checkpoint
from agd_core.methods.training_loop import Loop
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.diffusion_training import Examples, VelocityLoss, diffusion_loop, text_to_image
from agd_core.pretraining.emoji.recipe import DenoiserRecipe

UNET, TEXT_ENCODER = "unet", "text_encoder"


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
    attention = [level >= recipe.plain_levels for level in range(len(recipe.unet_channels))]
    return UNet2DConditionModel(
        sample_size=latent_shape[-1],
        in_channels=latent_shape[0],
        out_channels=latent_shape[0],
        block_out_channels=recipe.unet_channels,
        down_block_types=tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(attention)),
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
    device = next(model.parameters()).device
    loss = VelocityLoss(text_to_image(model[UNET], model[TEXT_ENCODER]), examples, training_scheduler(), recipe, device)
    steps = recipe.epochs * len(examples.mean) // recipe.batch_size
    return diffusion_loop(model, ema, loss, steps, recipe, checkpoint)
