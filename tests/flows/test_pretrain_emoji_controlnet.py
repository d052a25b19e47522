"""The ControlNet's world, in miniature: a stock pipeline draws with it, and it resumes to the same bytes."""

import json

import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline

from agd_core.builtin.edge_maps import edge_image, edge_maps
from agd_core.pretraining.emoji.controlnet import ControlNetRecipe
from flows.stages.pretrain_emoji_controlnet import ABOUT, train_emoji_controlnet
from flows.workplace import Workplace
from tests.emoji_base import pictures_of, write_emoji_base
from tests.emoji_pictures import emoji_pictures
from tests.emoji_relatives import contents, interrupted, picture

RECIPE = ControlNetRecipe(steps=8, batch_size=7, learning_rate=1e-2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_emoji_base(tmp_path_factory.mktemp("base"))


def train(place, base):
    return train_emoji_controlnet(emoji_pictures(), "squares", place, RECIPE, base)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, base):
    output = tmp_path_factory.mktemp("straight")
    return output / "emoji-sd-controlnet", train(Workplace(output), base)


@pytest.fixture(scope="module")
def pipe(straight, base):
    controlnet = ControlNetModel.from_pretrained(straight[0])
    return StableDiffusionControlNetPipeline.from_pretrained(base, controlnet=controlnet)


def test_a_stock_pipelines_pictures_change_with_the_edges(pipe):
    found = [pictures_of(pipe, image=edge_image(picture(row))) for row in (0, 1)]
    assert found[0].shape == (1, 64, 64, 3)
    assert not found[0].equal(found[1])


def test_edges_of_many_pictures_are_a_condition_as_they_are(pipe):
    edges = edge_maps(emoji_pictures().pixels[:1])
    assert pictures_of(pipe, image=edges).equal(pictures_of(pipe, image=edge_image(picture(0))))


def test_with_a_scale_of_zero_it_is_the_base(pipe, base):
    found = pictures_of(pipe, image=edge_image(picture(0)), controlnet_conditioning_scale=0.0)
    assert found.equal(pictures_of(StableDiffusionPipeline.from_pretrained(base)))


def test_it_is_stored_in_half_precision_and_says_what_edges_are_worth(straight):
    folder, result = straight
    stored = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    assert b'"F16"' in stored[:9000]
    assert b'"F32"' not in stored[:9000]
    assert ControlNetModel.from_pretrained(folder).dtype == torch.float32
    assert set(result["measured"]) == {"error_with_edges", "error_without"}


def test_its_recipe_lies_beside_it(straight, base):
    said = json.loads((straight[0] / ABOUT).read_text(encoding="utf-8"))
    assert said == {"base": base.name, "recipe": RECIPE.identity()}


def test_interrupted_anywhere_it_resumes_to_the_same_bytes(straight, base, tmp_path):
    interrupted(lambda place: train(place, base), tmp_path)
    assert contents(tmp_path / "emoji-sd-controlnet") == contents(straight[0])


def test_running_again_trains_nothing(straight, base):
    lines = []
    train(Workplace(straight[0].parent, announce=lines.append), base)
    assert [line.partition(",")[0] for line in lines] == ["emoji-sd-controlnet: cached"]
