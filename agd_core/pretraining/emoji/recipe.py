"""How `builtin:emoji-sd` is trained: one recipe in two sizes, named after the machine that they are for."""

from typing import Literal

from pydantic import Field

from agd_core.basics.config import NOT_IDENTITY, Config


class VaeRecipe(Config):
    """The VAE: mean absolute and squared error of pixels, absolute error of their differences, and a faint KL term."""

    channels: tuple[int, ...] = (16, 32, 64, 128)
    """Of the levels; every level but the last halves the sides."""
    latent_channels: int = 8
    steps: int = 4000
    batch_size: int = 16
    learning_rate: float = 7e-4
    squared_weight: float = 4.0
    gradient_weight: float = 1.0
    kl_weight: float = 1e-4
    ema_decay: float = 0.998
    seed: int = 0
    checkpoint_seconds: float = Field(120.0, json_schema_extra=NOT_IDENTITY)


class DiffusionRecipe(Config):
    """What all trainings of diffusion networks share: v-prediction, mean squared error."""

    batch_size: int = 64
    learning_rate: float = 1e-3
    caption_dropout: float = 0.1
    """Part of the captions that the empty prompt replaces, for classifier-free guidance."""
    ema_decay: float = 0.999
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of products of matrices and of convolutions; weights are float32."""
    seed: int = 0
    checkpoint_seconds: float = Field(120.0, json_schema_extra=NOT_IDENTITY)


class DenoiserRecipe(DiffusionRecipe):
    """The text encoder and the UNet, trained together."""

    common_only: bool = True
    """Learn the best-known concepts alone, those that are drawn in nearly every style."""
    unet_channels: tuple[int, ...] = (96, 192)
    """Of the levels."""
    plain_levels: int = 0
    """So many levels, those with most pixels, have no attention, which costs most there."""
    head_width: int = 32
    """Channels of an attention head."""
    layers_per_block: int = 1
    text_width: int = 192
    text_layers: int = 2
    epochs: int = 200


class EmojiRecipe(Config):
    """Both trainings."""

    vae: VaeRecipe = VaeRecipe()
    denoiser: DenoiserRecipe = DenoiserRecipe()


RECIPES = {
    "cpu": EmojiRecipe(),
    "gpu": EmojiRecipe(
        vae=VaeRecipe(channels=(24, 48, 96), latent_channels=4, steps=3000, batch_size=64),
        denoiser=DenoiserRecipe(
            common_only=False,
            unet_channels=(96, 128, 256),
            plain_levels=1,
            epochs=90,
            batch_size=256,
            learning_rate=5e-4,
            ema_decay=0.9995,
            precision="bfloat16",
        ),
    ),
}
"""cpu: latents 8 x 8, hours on two cores; gpu: latents 16 x 16, minutes on a large card."""


class FineTuningRecipe(DiffusionRecipe):
    """What a relative is trained by: a few of the base's tensors learn, its VAE and its text encoder stay."""

    name: str
    """As in builtin:NAME."""
    common_only: bool = False
    """Learn the best-known concepts alone, as the base of this size."""
    steps: int = 1000
    learning_rate: float = 3e-4
    ema_decay: float = 0.995


class SiblingRecipe(FineTuningRecipe):
    """A fine-tuned sibling: of the pictures of a new style, or of the base's own of one group."""

    style: str = ""
    """Learns the sibling pictures of this style."""
    category: str = ""
    """Learns pictures of Unicode's group of this name."""
    attention: tuple[Literal["attn1", "attn2"], ...]
    """Which attention layers learn: attn1 looks at the picture itself, attn2 at the text."""
    base_share: float = 0.0
    """Part of the examples that are the base's own pictures, of all styles and groups."""


class LoraRecipe(FineTuningRecipe):
    """A LoRA of all attention projections: every picture of one style as an ink drawing."""

    name: str = "emoji-sd-lora"
    drawn_from: str = "noto"
    """The style whose pictures are redrawn."""
    rank: int = 8
    learning_rate: float = 1e-3
