"""The LoRA, in miniature: a random base, eight squares, a few steps."""

import sys

import pytest
from diffusers import StableDiffusionPipeline

from agd_core.basics.errors import InputError
from agd_core.pretraining.emoji.lora import add_lora, ink_pictures
from agd_core.pretraining.emoji.relative_recipes import LORAS
from flows.stages.pretrain_emoji_lora import train_emoji_lora
from flows.workplace import Workplace
from tests.emoji_base import pictures_of, write_emoji_base
from tests.emoji_pictures import emoji_pictures
from tests.emoji_relatives import contents, interrupted

RECIPE = LORAS["gpu"].model_copy(
    update={"steps": 8, "batch_size": 4, "learning_rate": 1e-2, "precision": "float32", "drawn_from": "flat", "rank": 4}
)
FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_emoji_base(tmp_path_factory.mktemp("base"))


def train(base, output, recipe=RECIPE):
    return train_emoji_lora(emoji_pictures(), "squares", Workplace(output), recipe, base)


@pytest.fixture(scope="module")
def straight(base, tmp_path_factory):
    output = tmp_path_factory.mktemp("straight")
    return output, train(base, output)


def test_the_stock_pipeline_loads_it_and_makes_other_pictures(base, straight):
    output, result = straight
    assert result["measured"] == {"trained_images": 4}, "no picture of this style is held out"
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    plain = pictures_of(pipeline)
    pipeline.load_lora_weights(output / "emoji-sd-lora")
    assert not pictures_of(pipeline).equal(plain)
    pipeline.set_adapters(pipeline.get_active_adapters(), 0.0)
    assert pictures_of(pipeline).equal(plain)


def test_it_is_measured_on_drawings_that_it_did_not_learn(base, tmp_path):
    measured = train(base, tmp_path, recipe=RECIPE.model_copy(update={"drawn_from": "round"}))["measured"]
    assert set(measured) == {"trained_images", "error_of_base", "error"}
    assert measured["error"] != measured["error_of_base"]


def test_every_projection_of_every_attention_has_two_small_layers(base, straight):
    stored = (straight[0] / "emoji-sd-lora" / FILE).read_bytes()
    unet = StableDiffusionPipeline.from_pretrained(base).unet
    projections = [name for name, _ in unet.named_modules() if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))]
    assert projections
    for name in projections:
        assert f'"unet.{name}.lora_A.weight":{{"dtype":"F16"'.encode() in stored
        assert f'"unet.{name}.lora_B.weight":{{"dtype":"F16"'.encode() in stored


def test_interrupted_anywhere_it_resumes_to_the_same_bytes(base, straight, tmp_path):
    interrupted(lambda place: train_emoji_lora(emoji_pictures(), "squares", place, RECIPE, base), tmp_path)
    assert contents(tmp_path / "emoji-sd-lora") == contents(straight[0] / "emoji-sd-lora")


def test_without_peft_or_pictures_it_is_one_line(base, tmp_path, monkeypatch):
    recipe = RECIPE.model_copy(update={"drawn_from": "noto"})
    with pytest.raises(InputError, match="there is no picture of style noto"):
        train(base, tmp_path, recipe)
    unet = StableDiffusionPipeline.from_pretrained(base).unet
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match="needs peft: pip install"):
        add_lora(unet, RECIPE.rank)


def test_what_it_learns_is_one_style_drawn_in_ink():
    pictures = emoji_pictures()
    learnt = ink_pictures(pictures, RECIPE)
    assert learnt.styles == ("ink",) * 4
    assert learnt.names == pictures.names[::2]
    assert not learnt.pixels.equal(pictures.pixels[::2])
