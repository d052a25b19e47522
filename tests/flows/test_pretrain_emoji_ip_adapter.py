"""The IP-Adapter's world, in miniature: the stock loader reads it, and it resumes to the same bytes."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from flows.stages.pretrain_emoji_ip_adapter import ABOUT, FILE, SUBFOLDER, train_emoji_ip_adapter
from flows.workplace import Workplace
from tests.emoji_base import pictures_of, write_emoji_base
from tests.emoji_pictures import emoji_pictures, tiny_ip_adapter_recipe
from tests.emoji_relatives import contents, interrupted, picture

RECIPE = tiny_ip_adapter_recipe(steps=8, learning_rate=1e-2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_emoji_base(tmp_path_factory.mktemp("base"))


def train(place, base):
    return train_emoji_ip_adapter(emoji_pictures(), "squares", place, RECIPE, base)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, base):
    output = tmp_path_factory.mktemp("straight")
    return output / "emoji-sd-ip-adapter", train(Workplace(output), base)


@pytest.fixture
def pipe(straight, base):
    pipe = StableDiffusionPipeline.from_pretrained(base)
    pipe.load_ip_adapter(str(straight[0]), SUBFOLDER, FILE)
    return pipe


def test_a_stock_pipelines_pictures_change_with_the_image_prompt(pipe):
    found = [pictures_of(pipe, ip_adapter_image=picture(row)) for row in (0, 5)]
    assert found[0].shape == (1, 64, 64, 3)
    assert not found[0].equal(found[1])


def test_with_a_scale_of_zero_it_is_the_base(pipe, base):
    pipe.set_ip_adapter_scale(0.0)
    found = pictures_of(pipe, ip_adapter_image=picture(0))
    assert found.equal(pictures_of(StableDiffusionPipeline.from_pretrained(base)))


def test_its_tensors_may_be_given_as_they_are(pipe, straight, base):
    groups = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in load_file(straight[0] / SUBFOLDER / FILE).items():
        group, _, own = name.partition(".")
        groups[group][own] = tensor
    other = StableDiffusionPipeline.from_pretrained(base, image_encoder=pipe.image_encoder)
    other.load_ip_adapter(groups, "", "")
    found = [pictures_of(each, ip_adapter_image=picture(0)) for each in (pipe, other)]
    assert found[0].equal(found[1])


def test_image_encoder_and_processor_load_by_themselves(straight, pipe):
    folder = straight[0] / SUBFOLDER / "image_encoder"
    processor, encoder = (
        CLIPImageProcessor.from_pretrained(folder),
        CLIPVisionModelWithProjection.from_pretrained(folder),
    )
    pixels = processor(picture(0), return_tensors="pt").pixel_values
    assert pixels.shape == (1, 3, 64, 64)
    assert torch.equal(pixels, pipe.feature_extractor(picture(0), return_tensors="pt").pixel_values)
    assert encoder.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(encoder(pixels).image_embeds, pipe.image_encoder(pixels).image_embeds)


def test_it_is_stored_in_half_precision_and_says_what_image_prompts_are_worth(straight):
    folder, result = straight
    stored = [load_file(path) for path in folder.rglob("*.safetensors")]
    assert len(stored) == 2
    assert {tensor.dtype for tensors in stored for tensor in tensors.values()} == {torch.float16}
    assert set(result["measured"]) == {"error_with_image_prompts", "error_without"}


def test_its_recipe_lies_beside_it(straight, base):
    said = json.loads((straight[0] / ABOUT).read_text(encoding="utf-8"))
    assert said == {"base": base.name, "recipe": RECIPE.identity()}


def test_interrupted_anywhere_it_resumes_to_the_same_bytes(straight, base, tmp_path):
    interrupted(lambda place: train(place, base), tmp_path)
    assert contents(tmp_path / "emoji-sd-ip-adapter") == contents(straight[0])


def test_running_again_trains_nothing(straight, base):
    lines = []
    train(Workplace(straight[0].parent, announce=lines.append), base)
    assert [line.partition(",")[0] for line in lines] == ["emoji-sd-ip-adapter: cached"]
