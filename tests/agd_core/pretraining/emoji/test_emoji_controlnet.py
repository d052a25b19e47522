"""The ControlNet: it begins as the base's encoder, changes nothing before it is trained, and alone is trained."""

import pytest
import torch

from agd_core.basics.checkpoint import Checkpoint
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.controlnet import (
    ControlNetRecipe,
    EdgeConditioned,
    build_controlnet,
    controlnet_loop,
)
from agd_core.pretraining.emoji.denoiser import UNET, build_denoiser
from agd_core.pretraining.emoji.frozen_base import examples_of, load_frozen
from agd_core.pretraining.emoji.recipe import RECIPES
from tests.emoji_base import write_emoji_base
from tests.emoji_pictures import emoji_pictures
from tests.emoji_sizes import LargestTokenizer

MOST_BYTES = 9e6
HALF_PRECISION_BYTES = 2


@pytest.fixture
def base(tmp_path):
    return load_frozen(write_emoji_base(tmp_path), torch.device("cpu"))


def inputs():
    torch.manual_seed(0)
    hidden, edges = torch.randn(2, 8, 32), torch.rand(2, 3, 64, 64).round()
    return torch.randn(2, 4, 8, 8), torch.tensor([10, 900]), hidden, edges


def test_before_it_is_trained_it_changes_nothing(base):
    latents, timesteps, hidden, edges = inputs()
    controlnet = build_controlnet(base.unet, 8)
    with torch.no_grad():
        found = EdgeConditioned(controlnet, base.unet)(latents, timesteps, hidden, edges)
        assert found.equal(base.unet(latents, timesteps, hidden).sample)


def test_it_begins_as_the_bases_encoder_without_attention(base):
    own, unet = build_controlnet(base.unet, 8).state_dict(), base.unet.state_dict()
    copied = {name for name in own if name in unet and own[name].equal(unet[name])}
    assert {name for name in own if not name.startswith("controlnet_")} == copied
    assert not any("attentions" in name for name in own)


def test_training_moves_it_alone_and_its_loss_falls(base, tmp_path):
    pictures = emoji_pictures()
    before = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    recipe = ControlNetRecipe(steps=40, batch_size=8, learning_rate=1e-2)
    torch.manual_seed(0)
    controlnet = build_controlnet(base.unet, 8)
    loop = controlnet_loop(
        Ema(controlnet, 0.9), base, pictures.pixels, examples_of(base, pictures), recipe, Checkpoint(tmp_path / "c", "")
    )
    losses = loop.run()
    assert sum(losses[-10:]) < sum(losses[:10])
    assert all(tensor.equal(before[name]) for name, tensor in base.unet.state_dict().items())
    assert all(tensor.grad is None for tensor in base.unet.parameters())
    assert all(bool(block.weight.any()) for block in controlnet.controlnet_down_blocks)


@pytest.mark.parametrize("size", RECIPES)
def test_it_takes_edges_of_64_pixels_and_has_at_most_9_megabytes(size):
    halvings = len(RECIPES[size].vae.channels) - 1
    side = 64 >> halvings
    with torch.device("meta"):
        shape = (RECIPES[size].vae.latent_channels, side, side)
        unet = build_denoiser(RECIPES[size].denoiser, shape, LargestTokenizer())[UNET]
        controlnet = build_controlnet(unet, 2**halvings)
        hidden = torch.zeros(1, 8, RECIPES[size].denoiser.text_width)
        condition = torch.zeros(1, *shape), torch.zeros(1, dtype=torch.long), hidden, torch.zeros(1, 3, 64, 64)
        assert EdgeConditioned(controlnet, unet)(*condition).shape == (1, *shape)
    assert sum(tensor.numel() for tensor in controlnet.parameters()) * HALF_PRECISION_BYTES < MOST_BYTES
