"""The frozen base: as it is stored, its identity, its pictures, and an error that is the same for the same network."""

import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.pretraining.emoji.autoencoder import encode
from agd_core.pretraining.emoji.controlnet import EdgeConditioned, build_controlnet, with_edges
from agd_core.pretraining.emoji.frozen_base import base_digest, examples_of, load_frozen, mean_error, plain
from agd_core.pretraining.emoji.recipe import DiffusionRecipe
from tests.emoji_base import write_emoji_base
from tests.emoji_pictures import emoji_pictures

RECIPE = DiffusionRecipe(batch_size=8, caption_dropout=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_emoji_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def base(folder):
    return load_frozen(folder, torch.device("cpu"))


def test_nothing_of_it_is_trained(base):
    for part in (base.vae, base.text_encoder, base.unet):
        assert not any(parameter.requires_grad for parameter in part.parameters())
        assert not part.training
        assert part.dtype == torch.float32


def test_its_identity_is_that_of_every_file(folder, tmp_path):
    assert base_digest(folder) == base_digest(write_emoji_base(tmp_path))
    other = write_emoji_base(tmp_path / "other", seed=1)
    assert base_digest(other) != base_digest(folder)
    (tmp_path / "emoji-sd" / "scheduler" / "scheduler_config.json").write_text("{}")
    assert base_digest(tmp_path / "emoji-sd") != base_digest(folder)


def test_a_file_is_no_base(folder):
    with pytest.raises(InputError):
        load_frozen(folder / "model_index.json", torch.device("cpu"))


def test_its_examples_are_its_vaes_latents_in_its_scale(base):
    pictures = emoji_pictures()
    mean, std = encode(base.vae, pictures.pixels)
    examples = examples_of(base, pictures)
    assert examples.mean.equal(mean * base.vae.config.scaling_factor)
    assert examples.std.equal(std * base.vae.config.scaling_factor)
    tokens = examples.captions.draw(torch.tensor([0]), 1.0, 0.0, torch.Generator().manual_seed(0))
    assert base.tokenizer.decode(tokens[0], skip_special_tokens=True) == "red square , flat style"


def test_an_error_is_the_same_for_what_predicts_the_same(base):
    pictures = emoji_pictures()
    examples = examples_of(base, pictures)
    alone = mean_error(plain(base), base, examples, RECIPE)
    untrained = EdgeConditioned(build_controlnet(base.unet, 8), base.unet)
    assert mean_error(with_edges(untrained, base, pictures.pixels), base, examples, RECIPE) == alone
    assert mean_error(lambda batch: torch.zeros_like(batch.latents), base, examples, RECIPE) != alone
