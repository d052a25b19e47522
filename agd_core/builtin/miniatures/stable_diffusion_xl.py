"""The miniature of SDXL: two text encoders, pooled text and size conditions, uneven transformer depths."""

from pathlib import Path
from typing import Any

from agd_core.builtin.miniatures.parts import clip_text_encoder, clip_tokenizer, vae
from agd_core.builtin.miniatures.stable_diffusion import NOISE_SCHEDULE, UNET_GAINS
from agd_core.builtin.miniatures.weights import fill, untouched_random_state

_TEXT_WIDTH = 32
_SIZE_WIDTH = 8


def write_stable_diffusion_xl(folder: Path) -> None:
    """Latents `[4, 16, 16]`, images of 128 px, 17 cross-attentions of width 32, Euler."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    with untouched_random_state():
        tokenizers = clip_tokenizer(), clip_tokenizer(pad_token="!")  # noqa: S106
        pipeline = StableDiffusionXLPipeline(
            unet=_unet(),
            scheduler=EulerDiscreteScheduler.from_config(NOISE_SCHEDULE, timestep_spacing="leading"),
            tokenizer=tokenizers[0],
            tokenizer_2=tokenizers[1],
            text_encoder=clip_text_encoder("tiny-sdxl/text_encoder", tokenizers[0], width=_TEXT_WIDTH),
            text_encoder_2=clip_text_encoder(
                "tiny-sdxl/text_encoder_2", tokenizers[1], projected=True, width=_TEXT_WIDTH, activation="gelu"
            ),
            vae=vae("tiny-sdxl", 4, sample_size=128, scaling_factor=0.13025, force_upcast=True),
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        )
        pipeline.save_pretrained(folder, safe_serialization=True)


def _unet() -> Any:
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        layers_per_block=2,
        attention_head_dim=(2, 4, 4),
        cross_attention_dim=2 * _TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=_SIZE_WIDTH,
        projection_class_embeddings_input_dim=_TEXT_WIDTH + 6 * _SIZE_WIDTH,
        norm_num_groups=8,
    )
    return fill(model, "tiny-sdxl/unet", UNET_GAINS)
