"""The emoji world's VAE: its latents are standardised without a change of what is decoded."""

import pytest
import torch

from agd_core.pretraining.emoji.autoencoder import build_autoencoder, decode, encode, signed, standardise
from agd_core.pretraining.emoji.recipe import RECIPES
from tests.emoji_pictures import emoji_pictures, tiny_recipe


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return build_autoencoder(tiny_recipe().vae).eval()


def test_pictures_are_signed():
    pixels = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    assert signed(pixels).flatten().tolist() == pytest.approx([-1, 1, -0.6])
    assert signed(pixels).shape == (1, 3, 1, 1)


def test_standardised_latents_have_mean_0_and_deviation_1_in_every_channel(vae):
    pixels = emoji_pictures().pixels
    standardise(vae, encode(vae, pixels)[0])
    means, _ = encode(vae, pixels)
    torch.testing.assert_close(means.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(means.std((0, 2, 3)), torch.ones(4), rtol=1e-4, atol=0)
    assert vae.config.scaling_factor == 1


def test_standardising_changes_neither_pictures_nor_relative_deviations(vae):
    pixels = emoji_pictures().pixels
    means, stds = encode(vae, pixels)
    decoded, scale = decode(vae, means), means.std((0, 2, 3))[:, None, None]
    standardise(vae, means)
    found, found_stds = encode(vae, pixels)
    torch.testing.assert_close(decode(vae, found), decoded, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found_stds, stds / scale, rtol=1e-4, atol=1e-6)


def test_results_do_not_depend_on_the_batch(vae):
    pixels = emoji_pictures().pixels
    for whole, parts in zip(encode(vae, pixels), encode(vae, pixels, batch_size=3), strict=True):
        torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize(("size", "side"), [("cpu", 8), ("gpu", 16)])
def test_the_sizes_differ_in_the_side_of_their_latents(size, side):
    model = build_autoencoder(RECIPES[size].vae)
    means, stds = encode(model, emoji_pictures().pixels[:1])
    assert means.shape == stds.shape == (1, RECIPES[size].vae.latent_channels, side, side)
