"""The emoji world's text encoder and UNet: sizes, schedule, and a loss that trains both."""

import pytest
import torch

from agd_core.basics.checkpoint import Checkpoint
from agd_core.models.base_schedule import check_schedule
from agd_core.models.schedulers import build_scheduler
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.autoencoder import build_autoencoder
from agd_core.pretraining.emoji.caption_tokens import CaptionTokens
from agd_core.pretraining.emoji.captions import all_captions
from agd_core.pretraining.emoji.denoiser import build_denoiser, denoiser_loop, training_scheduler
from agd_core.pretraining.emoji.diffusion_training import Examples
from agd_core.pretraining.emoji.recipe import RECIPES
from agd_core.pretraining.emoji.tokenizer import write_tokenizer
from tests.emoji_pictures import emoji_pictures, tiny_recipe
from tests.emoji_sizes import LargestTokenizer

MOST_BYTES = 60e6
HALF_PRECISION_BYTES = 2


@pytest.fixture
def training(tmp_path):
    """A training run, and what it trains."""
    return training_of(tiny_recipe(20).denoiser, tmp_path)


def training_of(recipe, tmp_path):
    pictures = emoji_pictures()
    captions = [all_captions(name, style) for name, style in zip(pictures.names, pictures.styles, strict=True)]
    tokenizer = write_tokenizer([text for each in captions for text in each], tmp_path)
    torch.manual_seed(0)
    model = build_denoiser(recipe, (4, 8, 8), tokenizer)
    mean = torch.randn(len(pictures), 4, 8, 8)
    examples = Examples(mean, torch.full_like(mean, 0.1), CaptionTokens.of(tokenizer, captions))
    return denoiser_loop(model, Ema(model, 0.9), examples, recipe, Checkpoint(tmp_path / "checkpoint", "")), model


@pytest.mark.parametrize("size", RECIPES)
def test_all_parts_in_half_precision_have_at_most_60_megabytes(size):
    recipe = RECIPES[size]
    side = 64 // 2 ** (len(recipe.vae.channels) - 1)
    with torch.device("meta"):
        vae = build_autoencoder(recipe.vae)
        shape = (recipe.vae.latent_channels, side, side)
        denoiser = build_denoiser(recipe.denoiser, shape, LargestTokenizer())
    parameters = sum(parameter.numel() for part in (vae, denoiser) for parameter in part.parameters())
    assert parameters * HALF_PRECISION_BYTES < MOST_BYTES


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpm-solver++", "euler"])
def test_every_sampler_walks_its_schedule_from_noise_that_hides_nothing(name):
    config = dict(training_scheduler().config)
    check_schedule(config, "DDIMScheduler", "emoji-sd")
    scheduler = build_scheduler(name, config, 10)
    assert float(scheduler.timesteps[0]) == pytest.approx(999)
    left = training_scheduler().alphas_cumprod[-1].sqrt()
    assert 0 < left < 0.02


def test_a_steps_loss_is_a_function_of_its_number(training):
    loop, _ = training
    with torch.no_grad():
        assert loop.loss_at(3) == loop.loss_at(3)
        assert loop.loss_at(3) != loop.loss_at(4)


def test_text_encoder_and_unet_are_trained_and_the_loss_falls(training):
    loop, model = training
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = loop.run()
    moved = {
        name.partition(".")[0] for name, parameter in model.named_parameters() if (parameter != before[name]).any()
    }
    assert moved == {"text_encoder", "unet"}
    assert sum(losses[-5:]) < sum(losses[:5])


def test_products_in_half_precision_give_nearly_the_same_loss(training, tmp_path):
    recipe = tiny_recipe(20).denoiser.model_copy(update={"precision": "bfloat16"})
    half, _ = training_of(recipe, tmp_path)
    with torch.no_grad():
        exact, rounded = training[0].loss_at(3), half.loss_at(3)
    assert rounded.dtype == torch.float32
    assert exact != rounded
    assert float(rounded) == pytest.approx(float(exact), rel=0.02)
