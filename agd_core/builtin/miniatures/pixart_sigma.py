"""The miniature of PixArt-Sigma: cross-attention to T5 under a mask, epsilon beside its variance."""

from pathlib import Path
from typing import Any

from agd_core.builtin.miniatures.parts import t5_text_encoder, t5_tokenizer, vae
from agd_core.builtin.miniatures.weights import fill, untouched_random_state

_T5_WIDTH = 32
_WIDTH = 48
_NOISE_SCHEDULE: dict[str, Any] = {
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "timestep_spacing": "leading",
}
"""The real one begins at the last timestep, where a random network's epsilon makes latents of any size."""


def write_pixart_sigma(folder: Path) -> None:
    """Latents `[4, 32, 32]`, images of 256 px, the smallest that the pipeline knows, four blocks of width 48."""
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline

    with untouched_random_state():
        tokenizer = t5_tokenizer()
        pipeline = PixArtSigmaPipeline(
            tokenizer=tokenizer,
            text_encoder=t5_text_encoder("tiny-pixart/text_encoder", tokenizer, _T5_WIDTH),
            transformer=_transformer(),
            vae=vae("tiny-pixart", 4, sample_size=256, scaling_factor=0.13025),
            scheduler=DPMSolverMultistepScheduler.from_config(_NOISE_SCHEDULE),
        )
        pipeline.save_pretrained(folder, safe_serialization=True)


def _transformer() -> Any:
    from diffusers import PixArtTransformer2DModel

    model = PixArtTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=_WIDTH // 4,
        in_channels=4,
        out_channels=8,
        num_layers=4,
        cross_attention_dim=_WIDTH,
        attention_bias=True,
        sample_size=32,
        patch_size=2,
        norm_eps=1e-6,
        caption_channels=_T5_WIDTH,
        use_additional_conditions=False,
    )
    return fill(model, "tiny-pixart/transformer", {"attn2.to_out.0.weight": 2.0, "pos_embed.proj.weight": 0.3})
