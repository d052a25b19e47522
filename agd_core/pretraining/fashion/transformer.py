"""The built-in world's denoiser: a small stock class-conditional DiT on VAE latents.

DiT: https://arxiv.org/abs/2212.09748; classifier-free guidance needs a model that also knows the
unconditional case, hence the label dropout (https://arxiv.org/abs/2207.12598).
"""

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from torch import Tensor

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.config import Config
from agd_core.basics.seeding import generator
from agd_core.data.order import batch_indices
from agd_core.methods.training_loop import Loop, LoopConfig
from agd_core.pretraining.ema import Ema

NULL_CLASS = 1000
"""diffusers' DiTPipeline hard-codes class 1000 as the null class, so our label table has 1001 rows too."""


class TransformerRecipe(Config):
    """How the shipped teacher was trained: epsilon prediction, mean squared error."""

    epochs: int = 32
    batch_size: int = 128
    learning_rate: float = 1e-3
    label_dropout: float = 0.1
    ema_decay: float = 0.9995
    seed: int = 0


def build_transformer() -> DiTTransformer2DModel:
    """The untrained DiT: 6 blocks of width 128, 4 heads, patch 2 on 8x8x4 latents (16 tokens)."""
    return DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=NULL_CLASS,
        norm_type="ada_norm_zero",
        norm_elementwise_affine=False,
        activation_fn="gelu-approximate",
        attention_bias=True,
    )


def pretraining_scheduler() -> DDIMScheduler:
    """DiT's linear schedule, 1000 training steps; trailing spacing starts few-step sampling from pure noise."""
    return DDIMScheduler(beta_schedule="linear", clip_sample=False, timestep_spacing="trailing", steps_offset=0)


def transformer_loop(
    model: DiTTransformer2DModel,
    ema: Ema,
    latents: Tensor,
    labels: Tensor,
    recipe: TransformerRecipe,
    checkpoint: Checkpoint,
) -> Loop:
    """The training run of the DiT.

    The model stays in eval mode: diffusers drops labels in every block by itself and independently, which
    would leak the label through the other blocks; here one draw per image replaces it by the null class.

    Args:
        latents: scaled VAE latents float32 `[N, 4, 8, 8]`.
        labels: int64 `[N]`.
    """
    model.eval()
    scheduler = pretraining_scheduler()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.0, betas=(0.9, 0.99))

    def loss_at(step: int) -> Tensor:
        rows = batch_indices(len(latents), recipe.batch_size, recipe.seed, step)
        rng = generator(recipe.seed, "diffusion", step)
        noise = torch.randn(latents[rows].shape, generator=rng)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(rows),), generator=rng)
        dropped = torch.rand(len(rows), generator=rng) < recipe.label_dropout
        noisy = scheduler.add_noise(latents[rows], noise, timesteps)
        classes = torch.where(dropped, NULL_CLASS, labels[rows])
        predicted = model(noisy, timestep=timesteps, class_labels=classes).sample
        return torch.nn.functional.mse_loss(predicted, noise)

    config = LoopConfig(
        recipe.epochs * len(latents) // recipe.batch_size,
        recipe.learning_rate,
        warmup_fraction=0.02,
        max_gradient_norm=1.0,
    )
    modules = {"transformer": model, "ema": ema.average}
    return Loop(config, modules, optimizer, loss_at, checkpoint, after_step=ema.update)
