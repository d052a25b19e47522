"""The built-in world's VAE: a small stock AutoencoderKL, 32x32x1 images to 8x8x4 latents."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.config import Config
from agd_core.basics.seeding import generator
from agd_core.data.order import batch_indices
from agd_core.methods.training_loop import Loop, LoopConfig
from agd_core.pretraining.ema import Ema


class AutoencoderRecipe(Config):
    """How the shipped VAE was trained: mean absolute plus squared error and a faint KL term."""

    epochs: int = 4
    batch_size: int = 64
    learning_rate: float = 2e-3
    kl_weight: float = 1e-4
    ema_decay: float = 0.999
    seed: int = 0


def build_autoencoder() -> AutoencoderKL:
    """The untrained VAE; factor 4 in space, 4 latent channels."""
    return AutoencoderKL(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=32,
        mid_block_add_attention=False,
    )


def autoencoder_loop(
    model: AutoencoderKL, ema: Ema, images: Tensor, recipe: AutoencoderRecipe, checkpoint: Checkpoint
) -> Loop:
    """The training run of the VAE; `images` float32 `[N, 1, 32, 32]` in [-1, 1]."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.0)

    def loss_at(step: int) -> Tensor:
        batch = images[batch_indices(len(images), recipe.batch_size, recipe.seed, step)]
        posterior = model.encode(batch).latent_dist
        decoded = model.decode(posterior.sample(generator(recipe.seed, "posterior", step))).sample
        error = decoded - batch
        kl: Tensor = posterior.kl().mean() / posterior.mean[0].numel()
        loss: Tensor = error.abs().mean() + error.square().mean() + recipe.kl_weight * kl
        return loss

    config = LoopConfig(recipe.epochs * len(images) // recipe.batch_size, recipe.learning_rate, max_gradient_norm=1.0)
    modules = {"autoencoder": model, "ema": ema.average}
    return Loop(config, modules, optimizer, loss_at, checkpoint, after_step=ema.update)


@torch.inference_mode()
def encode_means(model: AutoencoderKL, images: Tensor, batch_size: int = 250) -> Tensor:
    """Posterior means of all images, unscaled, float32 `[N, 4, 8, 8]`."""
    return torch.cat([model.encode(batch).latent_dist.mean for batch in torch.split(images, batch_size)])


@torch.inference_mode()
def reconstruct(model: AutoencoderKL, images: Tensor, batch_size: int = 250) -> Tensor:
    """Images through encoder mean and decoder, float32 `[N, 1, 32, 32]`."""
    return torch.cat(
        [model.decode(model.encode(batch).latent_dist.mean).sample for batch in torch.split(images, batch_size)]
    )
