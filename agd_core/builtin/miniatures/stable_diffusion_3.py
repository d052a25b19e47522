"""The miniature of Stable Diffusion 3: joint attention, flow matching, two CLIPs and a T5."""

from pathlib import Path
from typing import Any

from agd_core.builtin.miniatures.parts import clip_text_encoder, clip_tokenizer, t5_text_encoder, t5_tokenizer, vae
from agd_core.builtin.miniatures.weights import fill, untouched_random_state

_CHANNELS = 16
_CLIP_WIDTHS = (16, 32)
_T5_WIDTH = 64


def write_stable_diffusion_3(folder: Path) -> None:
    """Latents `[16, 8, 8]`, images of 64 px, four joint blocks of width 48, flow matching with shift 3."""
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    with untouched_random_state():
        pipeline = StableDiffusion3Pipeline(
            transformer=_transformer(),
            scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
            vae=vae(
                "tiny-sd3",
                _CHANNELS,
                sample_size=64,
                scaling_factor=1.5305,
                shift_factor=0.0609,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            **_text_components(),
        )
        pipeline.save_pretrained(folder, safe_serialization=True)


def _text_components() -> dict[str, Any]:
    first, second, third = clip_tokenizer(), clip_tokenizer(pad_token="!"), t5_tokenizer()  # noqa: S106
    return {
        "tokenizer": first,
        "tokenizer_2": second,
        "tokenizer_3": third,
        "text_encoder": clip_text_encoder("tiny-sd3/text_encoder", first, projected=True, width=_CLIP_WIDTHS[0]),
        "text_encoder_2": clip_text_encoder(
            "tiny-sd3/text_encoder_2", second, projected=True, width=_CLIP_WIDTHS[1], activation="gelu"
        ),
        "text_encoder_3": t5_text_encoder("tiny-sd3/text_encoder_3", third, _T5_WIDTH),
    }


def _transformer() -> Any:
    from diffusers import SD3Transformer2DModel

    model = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=_CHANNELS,
        out_channels=_CHANNELS,
        num_layers=4,
        num_attention_heads=4,
        attention_head_dim=12,
        joint_attention_dim=_T5_WIDTH,
        caption_projection_dim=48,
        pooled_projection_dim=sum(_CLIP_WIDTHS),
        pos_embed_max_size=12,
    )
    gains = {"text_embedder.linear_2.weight": 0.3, "context_embedder.weight": 0.5}
    return fill(model, "tiny-sd3/transformer", gains)
