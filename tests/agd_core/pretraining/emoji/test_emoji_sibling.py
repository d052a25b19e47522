"""What siblings learn: which pictures, how often each, and which tensors."""

import dataclasses

import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.pretraining.emoji.caption_tokens import CaptionTokens
from agd_core.pretraining.emoji.denoiser import build_denoiser
from agd_core.pretraining.emoji.diffusion_training import Examples
from agd_core.pretraining.emoji.fine_tuning import trained_part
from agd_core.pretraining.emoji.images import HELD_OUT, SIBLING, TRAIN
from agd_core.pretraining.emoji.recipe import SiblingRecipe
from agd_core.pretraining.emoji.sibling import sibling_pictures, train_attention, unseen_pictures
from tests.emoji_pictures import emoji_pictures, tiny_recipe
from tests.emoji_sizes import LargestTokenizer

SPLITS = (TRAIN, HELD_OUT, TRAIN, TRAIN, TRAIN, TRAIN, SIBLING, SIBLING)
FOOD = SiblingRecipe(name="food", category="Food & Drink", attention=("attn2",))
STYLE = SiblingRecipe(name="style", style="round", attention=("attn1", "attn2"), base_share=0.5)


@pytest.fixture
def images():
    """Red and green squares are food, one of them is held out; black ones are the siblings', one per style."""
    plain = emoji_pictures()
    categories = ("Food & Drink",) * 4 + ("Symbols",) * 4
    common = torch.tensor([True, True, False, True, True, True, True, True])
    return dataclasses.replace(plain, splits=SPLITS, categories=categories, common=common)


def test_a_domain_learns_its_own_group_of_the_base(images):
    learnt, rows = sibling_pictures(images, FOOD)
    assert learnt.names == ("red square", "green square", "green square")
    assert rows.tolist() == [0, 1, 2]
    assert sibling_pictures(images, FOOD.model_copy(update={"common_only": True}))[0].names == learnt.names[::2]
    assert unseen_pictures(images, FOOD).names == ("red square",)


def test_a_style_is_shown_as_often_as_all_of_the_base(images):
    learnt, rows = sibling_pictures(images, STYLE)
    assert learnt.styles[0] == "round"
    assert set(learnt.splits[1:]) == {TRAIN}
    assert learnt.pixels[0].equal(images.pixels[7])
    assert rows.tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert not len(unseen_pictures(images, STYLE.model_copy(update={"style": "firefox"})))


def test_a_smaller_share_of_the_base_repeats_its_own_pictures_more(images):
    _, rows = sibling_pictures(images, STYLE.model_copy(update={"base_share": 0.25}))
    assert (rows == 0).sum() == 15


def test_a_style_that_nobody_draws_is_one_line(images):
    with pytest.raises(InputError, match="style: there is no picture of cubist"):
        sibling_pictures(images, STYLE.model_copy(update={"style": "cubist"}))


def test_an_example_is_repeated_with_its_captions():
    captions = CaptionTokens(torch.arange(5)[:, None], torch.tensor([1, 3]), torch.tensor([2, 2]))
    latents = torch.arange(2.0)[:, None, None, None]
    chosen = Examples(latents, latents + 1, captions).rows(torch.tensor([1, 1, 0]))
    assert chosen.mean.flatten().tolist() == [1, 1, 0]
    assert chosen.std.flatten().tolist() == [2, 2, 1]
    drawn = chosen.captions.draw(torch.arange(3), 1.0, 0.0, torch.Generator())
    assert drawn.flatten().tolist() == [3, 3, 1]


@pytest.mark.parametrize("recipe", [FOOD, STYLE], ids=["food", "style"])
def test_only_the_recipes_attention_layers_have_gradients(recipe):
    unet = build_denoiser(tiny_recipe().denoiser, (4, 8, 8), LargestTokenizer())["unet"]
    train_attention(unet, recipe)
    with_gradients = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert {name for name in with_gradients if not any(f".{kind}." in name for kind in recipe.attention)} == set()
    part = dict(trained_part(unet).named_parameters())
    assert {name.replace("/", ".") for name in part} == with_gradients
    assert {id(parameter) for parameter in part.values()} < {id(parameter) for parameter in unet.parameters()}
