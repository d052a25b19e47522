"""How the emoji world's diffusion networks learn: v-prediction at random noise levels, whatever of them is trained.

v-prediction: https://arxiv.org/abs/2202.00512, appendix D.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import CLIPTextModel

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.seeding import generator
from agd_core.data.ahead import Ahead
from agd_core.data.order import batch_indices
from agd_core.methods.training_loop import Loop, LoopConfig
from agd_core.pretraining.capturing import Captured
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.autoencoder import PictureLatents
from agd_core.pretraining.emoji.caption_tokens import CaptionTokens
from agd_core.pretraining.emoji.captions import PLAIN_SHARE
from agd_core.pretraining.emoji.recipe import DiffusionRecipe


@dataclass(frozen=True)
class Examples:
    """What is learnt: the posterior of every picture, and its captions."""

    mean: PictureLatents
    std: PictureLatents
    captions: CaptionTokens

    def rows(self, rows: Int64[Tensor, " chosen"]) -> "Examples":
        """The examples of these numbers, as often as each is named."""
        return Examples(self.mean[rows], self.std[rows], self.captions.rows(rows))


@dataclass(frozen=True)
class NoisyBatch:
    """What a step asks the network about; on the network's device, but for the rows."""

    step: int
    rows: Int64[Tensor, " batch"]
    """Numbers of the pictures."""
    tokens: Int64[Tensor, "batch length"]
    latents: Float[Tensor, "batch channels height width"]
    """Noisy ones."""
    timesteps: Int64[Tensor, " batch"]


Predict = Callable[[NoisyBatch], Float[Tensor, "batch channels height width"]]
"""The v that a network predicts."""


def text_to_image(unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> Predict:
    """Ask a UNet as the stock pipeline does, with the text encoder's last hidden states."""
    captured = Captured(unet)

    def predict(batch: NoisyBatch) -> Tensor:
        hidden = text_encoder(batch.tokens).last_hidden_state
        return captured(batch.latents, batch.timesteps, hidden)

    return predict


class StepLoss(ABC):
    """What training makes small."""

    @abstractmethod
    def at(self, step: int) -> Tensor:
        """The loss of a step, a pure function of its number."""

    def prepare(self, step: int) -> None:  # noqa: B027
        """Have ready what a step needs; called while the step before it runs. There need be nothing to do."""


class VelocityLoss(StepLoss):
    """Mean squared error of the predicted v, at one random noise level per picture.

    Args:
        predict: asks the network; run in the recipe's precision.
        examples: on the CPU.
        scheduler: the network's noise levels.
        recipe: batch size, caption dropout, precision, seed.
        device: of the network.
    """

    def __init__(
        self,
        predict: Predict,
        examples: Examples,
        scheduler: DDIMScheduler,
        recipe: DiffusionRecipe,
        device: torch.device,
    ) -> None:
        self._predict, self._examples, self._recipe = predict, examples, recipe
        self._scheduler, self._device = scheduler, device
        self._batches = Ahead(self._batch)

    def at(self, step: int) -> Tensor:
        """The loss of a step."""
        batch, velocity = self._batches.at(step)
        half = self._recipe.precision == "bfloat16"
        # what is cast is not cached: a captured graph could not keep it up to date
        with torch.autocast(self._device.type, torch.bfloat16, enabled=half, cache_enabled=False):
            predicted = self._predict(batch)
        return torch.nn.functional.mse_loss(predicted.float(), velocity)

    def prepare(self, step: int) -> None:
        """Have a step's batch ready."""
        self._batches.fetch(step)

    def _batch(self, step: int) -> tuple[NoisyBatch, Tensor]:
        """What a step asks, and the right answer."""
        recipe, device = self._recipe, self._device
        rows = batch_indices(len(self._examples.mean), recipe.batch_size, recipe.seed, step)
        rng = generator(recipe.seed, "diffusion", step)
        tokens = self._examples.captions.draw(rows, PLAIN_SHARE, recipe.caption_dropout, rng)
        tokens, noisy, timesteps, velocity = (part.to(device) for part in (tokens, *self._noisy(rows, rng)))
        return NoisyBatch(step, rows, tokens, noisy, timesteps), velocity

    def _noisy(self, rows: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Noisy latents of some pictures, their timesteps and what is to be predicted."""
        mean, std = self._examples.mean[rows], self._examples.std[rows]
        sampling, noise = torch.randn(2, *mean.shape, generator=rng)
        latents = mean + std * sampling
        timesteps = torch.randint(0, self._scheduler.config.num_train_timesteps, (len(rows),), generator=rng)
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        return noisy, timesteps, self._scheduler.get_velocity(latents, noise, timesteps)


def diffusion_loop(
    trained: nn.Module, ema: Ema, loss: StepLoss, steps: int, recipe: DiffusionRecipe, checkpoint: Checkpoint
) -> Loop:
    """The training run of a network, or of the part of one that is not frozen.

    Args:
        trained: what is trained and nothing else.
        ema: its average.
        loss: asks the whole network.
        steps: how many.
        recipe: learning rate and seconds between checkpoints.
        checkpoint: where the state is saved.
    """
    optimizer = torch.optim.AdamW(trained.parameters(), recipe.learning_rate, (0.9, 0.99), weight_decay=0.0, fused=True)
    config = LoopConfig(
        steps,
        recipe.learning_rate,
        warmup_fraction=0.02,
        max_gradient_norm=1.0,
        checkpoint_seconds=recipe.checkpoint_seconds,
    )
    modules = {"denoiser": trained, "ema": ema.average}
    return Loop(config, modules, optimizer, loss.at, checkpoint, after_step=ema.update, meanwhile=loss.prepare)
