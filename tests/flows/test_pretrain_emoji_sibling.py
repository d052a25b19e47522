"""Fine-tuned siblings, in miniature: a random base, eight squares, a few steps."""

import dataclasses

import pytest
import torch
from diffusers import StableDiffusionPipeline

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.builtin.miniatures import miniature_folder
from agd_core.models.difference import TENSORS, apply_difference
from agd_core.pretraining.emoji.denoiser import build_denoiser
from agd_core.pretraining.emoji.fine_tuning import trained_part
from agd_core.pretraining.emoji.images import HELD_OUT, SIBLING, TRAIN
from agd_core.pretraining.emoji.recipe import RECIPES
from agd_core.pretraining.emoji.relative_recipes import SIBLINGS
from agd_core.pretraining.emoji.sibling import train_attention
from flows.stages.emoji_relative import pretrain_emoji_relative
from flows.stages.pretrain_emoji_sibling import train_emoji_sibling
from flows.workplace import Workplace
from tests.emoji_base import pictures_of, write_emoji_base
from tests.emoji_pictures import emoji_pictures
from tests.emoji_relatives import contents, interrupted
from tests.emoji_sizes import LargestTokenizer

MOST_BYTES, HALF_PRECISION_BYTES = 6e6, 2
FEW = {"steps": 8, "batch_size": 4, "learning_rate": 1e-2, "precision": "float32"}
FOOD, STYLE = (SIBLINGS[f"emoji-sd-{name}"]["gpu"].model_copy(update=FEW) for name in ("food", "style"))


def pictures():
    """Red and green squares are food, the fourth is held out; the last two are drawn in the siblings' style."""
    plain = emoji_pictures()
    categories = ("Food & Drink",) * 4 + ("Symbols",) * 4
    styles = plain.styles[:6] + ("firefox",) * 2
    splits = (TRAIN,) * 3 + (HELD_OUT,) + (TRAIN,) * 2 + (SIBLING,) * 2
    return dataclasses.replace(plain, categories=categories, styles=styles, splits=splits)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_emoji_base(tmp_path_factory.mktemp("base"))


def train(base, output, recipe=FOOD, **settings):
    return train_emoji_sibling(pictures(), "squares", Workplace(output, **settings), recipe, base)


@pytest.fixture(scope="module")
def straight(base, tmp_path_factory):
    output = tmp_path_factory.mktemp("straight")
    return output, train(base, output)


def changed(base, stock):
    """Names of the tensors of the UNet that a sibling has of its own."""
    first, second = (StableDiffusionPipeline.from_pretrained(folder) for folder in (base, stock))
    for part in ("vae", "text_encoder"):
        other = getattr(second, part).state_dict()
        assert all(value.equal(other[name]) for name, value in getattr(first, part).state_dict().items())
    other = second.unet.state_dict()
    return {name for name, value in first.unet.state_dict().items() if not value.equal(other[name])}


def test_it_leaves_a_stock_pipeline_in_which_the_cross_attention_alone_is_new(base, straight):
    output, result = straight
    assert set(result["artefacts"]) == {"emoji-sd-food", "emoji-sd-food-stock"}
    names = changed(base, output / "emoji-sd-food-stock")
    assert names
    assert all(".attn2." in name for name in names)
    stock = StableDiffusionPipeline.from_pretrained(output / "emoji-sd-food-stock")
    assert not pictures_of(stock).equal(pictures_of(StableDiffusionPipeline.from_pretrained(base)))
    assert set(result["measured"]) == {"trained_images", "error_of_base", "error"}
    assert result["measured"]["trained_images"] == 3
    assert result["measured"]["error"] != result["measured"]["error_of_base"]


def test_the_difference_turns_the_base_into_it(base, straight):
    output, _ = straight
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    apply_difference(pipeline.unet, output / "emoji-sd-food", base)
    whole = StableDiffusionPipeline.from_pretrained(output / "emoji-sd-food-stock").unet.state_dict()
    assert all(value.equal(whole[name]) for name, value in pipeline.unet.state_dict().items())
    assert b'"F32"' not in (output / "emoji-sd-food" / TENSORS).read_bytes()[:4000]
    assert (output / "emoji-sd-food" / "ATTRIBUTION.md").is_file()


def test_a_style_learns_both_attentions_and_the_bases_pictures_as_often_as_its_own(base, tmp_path):
    result = train(base, tmp_path, STYLE)
    names = changed(base, tmp_path / "emoji-sd-style-stock")
    assert {kind for kind in ("attn1", "attn2") if any(f".{kind}." in name for name in names)} == {"attn1", "attn2"}
    assert all(".attn" in name for name in names)
    assert result["measured"] == {"trained_images": 7}, "no picture of a new style is held out"
    assert "fxemoji" in (tmp_path / "emoji-sd-style" / "ATTRIBUTION.md").read_text()


def test_interrupted_anywhere_it_resumes_to_the_same_bytes(base, straight, tmp_path):
    interrupted(lambda place: train_emoji_sibling(pictures(), "squares", place, FOOD, base), tmp_path)
    for name in ("emoji-sd-food", "emoji-sd-food-stock"):
        assert contents(tmp_path / name) == contents(straight[0] / name)


def test_running_again_trains_nothing_and_another_base_is_another_run(base, straight, tmp_path):
    lines = []
    train(base, straight[0], announce=lines.append)
    assert [line.partition(",")[0] for line in lines] == ["emoji-sd-food: cached"]
    lines.clear()
    other = write_emoji_base(tmp_path / "other", seed=1)
    with pytest.raises(Stopped):
        train(other, straight[0], announce=lines.append, should_stop=lambda: True)
    assert lines == ["emoji-sd-food: training"]


def test_no_pictures_and_another_kind_of_base_are_one_line(base, tmp_path):
    nothing = FOOD.model_copy(update={"category": "Flags"})
    with pytest.raises(InputError, match="there is no picture of Flags"):
        train(base, tmp_path, nothing)
    base, recipe = str(miniature_folder("tiny-sd")), SIBLINGS["emoji-sd-food"]["cpu"]
    with pytest.raises(InputError, match="a relative needs a StableDiffusionPipeline with v_prediction"):
        pretrain_emoji_relative(train_emoji_sibling, recipe, None, Workplace(tmp_path), base)


@pytest.mark.parametrize("size", ["cpu", "gpu"])
@pytest.mark.parametrize("name", SIBLINGS)
def test_what_ships_has_at_most_six_megabytes(name, size):
    with torch.device("meta"):
        unet = build_denoiser(RECIPES[size].denoiser, (4, 16, 16), LargestTokenizer())["unet"]
    train_attention(unet, SIBLINGS[name][size])
    assert HALF_PRECISION_BYTES * sum(parameter.numel() for parameter in trained_part(unet).parameters()) < MOST_BYTES
