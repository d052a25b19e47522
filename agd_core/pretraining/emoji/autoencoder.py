"""The emoji world's VAE: a small stock AutoencoderKL on pictures of 64 pixels."""

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.seeding import generator
from agd_core.data.ahead import Ahead
from agd_core.data.order import batch_indices
from agd_core.methods.training_loop import Loop, LoopConfig
from agd_core.pretraining.capturing import Captured
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.recipe import VaeRecipe

Pixels = UInt8[Tensor, "images height width 3"]
PictureLatents = Float[Tensor, "images channels latent_height latent_width"]


def build_autoencoder(recipe: VaeRecipe) -> AutoencoderKL:
    """The untrained VAE; without attention, so that it may be trained and used at any size."""
    levels = len(recipe.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=recipe.channels,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=recipe.latent_channels,
        sample_size=64,
        mid_block_add_attention=False,
    )


def signed(pixels: Pixels) -> Float[Tensor, "images 3 height width"]:
    """Pixels as the VAE takes them, in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def autoencoder_loop(model: AutoencoderKL, ema: Ema, pixels: Pixels, recipe: VaeRecipe, checkpoint: Checkpoint) -> Loop:
    """The training run of the VAE, on the device of the model."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.0, fused=True)

    error = Captured(_Error(model, recipe))

    def batch_at(step: int) -> tuple[Tensor, Tensor]:
        rows = batch_indices(len(pixels), recipe.batch_size, recipe.seed, step)
        rng = generator(recipe.seed, "posterior", step)
        noise = torch.randn(len(rows), *_latent_shape(recipe, pixels), generator=rng)
        return pixels[rows].to(model.device), noise.to(model.device)

    batches = Ahead(batch_at)
    config = LoopConfig(
        recipe.steps,
        recipe.learning_rate,
        warmup_fraction=0.02,
        max_gradient_norm=1.0,
        checkpoint_seconds=recipe.checkpoint_seconds,
    )
    modules = {"autoencoder": model, "ema": ema.average}

    def loss_at(step: int) -> Tensor:
        return error(*batches.at(step))

    return Loop(config, modules, optimizer, loss_at, checkpoint, after_step=ema.update, meanwhile=batches.fetch)


def _latent_shape(recipe: VaeRecipe, pixels: Pixels) -> tuple[int, int, int]:
    smaller = 2 ** (len(recipe.channels) - 1)
    return recipe.latent_channels, pixels.shape[1] // smaller, pixels.shape[2] // smaller


class _Error(nn.Module):
    """The VAE's error as one function of tensors."""

    def __init__(self, model: AutoencoderKL, recipe: VaeRecipe) -> None:
        super().__init__()
        self.model, self._recipe = model, recipe

    def forward(self, pixels: Pixels, noise: PictureLatents) -> Float[Tensor, ""]:
        """Error of pixels and of edges, and a faint KL term.

        The absolute error alone learns late what is not white: white is the middle pixel of nearly every picture.
        """
        batch, recipe = signed(pixels), self._recipe
        posterior = self.model.encode(batch).latent_dist
        error = self.model.decode(posterior.mean + posterior.std * noise).sample - batch
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        of_pixels = error.abs().mean() + recipe.squared_weight * error.square().mean()
        loss: Tensor = of_pixels + recipe.gradient_weight * _edges(error) + recipe.kl_weight * kl
        return loss


def _edges(error: Tensor) -> Tensor:
    """Mean absolute difference of neighbours in x and in y: an error of edges costs more than one of areas."""
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


@torch.inference_mode()
def encode(model: AutoencoderKL, pixels: Pixels, batch_size: int = 100) -> tuple[PictureLatents, PictureLatents]:
    """Mean and standard deviation of the posterior of every picture, float32 on the CPU."""
    batches = [model.encode(signed(batch.to(model.device))).latent_dist for batch in torch.split(pixels, batch_size)]
    return torch.cat([each.mean.cpu() for each in batches]), torch.cat([each.std.cpu() for each in batches])


@torch.inference_mode()
def decode(
    model: AutoencoderKL, latents: PictureLatents, batch_size: int = 100
) -> Float[Tensor, "images 3 height width"]:
    """Pictures in [-1, 1] of latents as `encode` gives them, on the CPU."""
    return torch.cat([model.decode(batch.to(model.device)).sample.cpu() for batch in torch.split(latents, batch_size)])


@torch.no_grad()
def standardise(model: AutoencoderKL, means: PictureLatents) -> None:
    """Give every latent channel mean 0 and deviation 1 over these pictures; what is decoded stays the same.

    Stock pipelines know one scaling factor for all channels, so scale and shift of each go into the encoder's last
    layer and the decoder's first, which are convolutions of 1 x 1. The scaling factor is 1 then.

    Args:
        model: changed in place.
        means: posterior means of the training pictures under this model.
    """
    mean = means.mean((0, 2, 3)).to(model.device)
    std = means.std((0, 2, 3)).to(model.device)
    last, first, channels = model.quant_conv, model.post_quant_conv, len(mean)
    last.weight[:channels].div_(std[:, None, None, None])
    last.bias[:channels].sub_(mean).div_(std)
    last.bias[channels:].sub_(2 * std.log())  # log-variances
    first.bias.add_(first.weight[:, :, 0, 0] @ mean)
    first.weight.mul_(std[:, None, None])
    model.register_to_config(scaling_factor=1.0)
