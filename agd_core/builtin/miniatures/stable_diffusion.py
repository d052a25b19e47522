"""Miniatures of Stable Diffusion: 1.5 (epsilon) and 2.1 (v-prediction, linear projections)."""

from pathlib import Path
from typing import Any

from agd_core.builtin.miniatures.parts import clip_text_encoder, clip_tokenizer, vae
from agd_core.builtin.miniatures.weights import fill, untouched_random_state

NOISE_SCHEDULE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "clip_sample": False,
}
"""What all of Stable Diffusion before 3 was trained with."""
UNET_GAINS = {"attn2.to_out.0.weight": 0.7, "conv_out.weight": 1.5}


def write_stable_diffusion(folder: Path) -> None:
    """SD 1.5 in small: latents `[4, 16, 16]`, images of 128 px, 16 cross-attentions of width 16 to 32, PNDM."""
    from diffusers import PNDMScheduler

    with untouched_random_state():
        tokenizer = clip_tokenizer()
        _write(
            folder,
            unet=_unet("tiny-sd", attention_head_dim=2, cross_attention_dim=32),
            scheduler=PNDMScheduler.from_config(NOISE_SCHEDULE),
            tokenizer=tokenizer,
            text_encoder=clip_text_encoder("tiny-sd/text_encoder", tokenizer),
            vae=vae("tiny-sd", 4, sample_size=128, scaling_factor=0.18215),
        )


def write_stable_diffusion_v(folder: Path) -> None:
    """SD 2.1 in small: as 1.5, with v-prediction, linear projections and DDIM."""
    from diffusers import DDIMScheduler

    with untouched_random_state():
        tokenizer = clip_tokenizer(pad_token="!")  # noqa: S106
        _write(
            folder,
            unet=_unet(
                "tiny-sd-v", attention_head_dim=(2, 2, 4, 4), cross_attention_dim=40, use_linear_projection=True
            ),
            scheduler=DDIMScheduler.from_config(NOISE_SCHEDULE, prediction_type="v_prediction"),
            tokenizer=tokenizer,
            text_encoder=clip_text_encoder("tiny-sd-v/text_encoder", tokenizer, width=40, activation="gelu"),
            vae=vae("tiny-sd-v", 4, sample_size=128, scaling_factor=0.18215),
        )


def _unet(name: str, **settings: Any) -> Any:
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 16, 32, 32),
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        layers_per_block=2,
        norm_num_groups=8,
        **settings,
    )
    return fill(model, f"{name}/unet", UNET_GAINS)


def _write(folder: Path, **components: Any) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        **components, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
