"""Stage emoji-judge: a folder that the extractor opens, its accuracy beside it, the same bytes again."""

import json

import pytest
import torch
from transformers import CLIPModel

from agd_core.evaluation.extractors import open_extractor
from agd_core.pretraining.emoji.judge import JudgeRecipe
from flows.stages.emoji_judge import ACCURACY, FOLDER, candidates, emoji_judge, judged
from flows.stages.emoji_source import emoji_source, read_emoji
from flows.workplace import Workplace
from tests.emoji_packages import THINGS, write_packages

RECIPE = JudgeRecipe(
    steps=3,
    batch_size=4,
    patch=32,
    image_width=32,
    image_layers=1,
    text_width=32,
    text_layers=1,
    features=16,
    held_out=3,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emoji")
    return emoji_source(write_packages(folder / "packages"), Workplace(folder), held_out=2)


@pytest.fixture(scope="module")
def judge(source, tmp_path_factory):
    return emoji_judge(source, Workplace(tmp_path_factory.mktemp("judge")), RECIPE)


def test_the_folder_is_an_extractors_with_its_real_images(judge, source):
    opened = open_extractor("emoji-judge", str(judge.path / FOLDER), None, torch.device("cpu"))
    images = read_emoji(source.path)
    assert opened.words.styles == sorted(set(images.styles))
    assert opened.words.names == sorted(name.replace("-", " ") for name in THINGS)
    assert opened.shipped_reference().statistics.samples == len(images.of("train", "held-out", common_only=True))
    assert set(judged(opened, images)) == {"name_top1", "name_top5", "style_top1"}
    assert isinstance(CLIPModel.from_pretrained(judge.path / FOLDER), CLIPModel)


def test_its_accuracy_on_pictures_that_it_never_saw_lies_beside_it(judge):
    told = json.loads((judge.path / ACCURACY).read_text())
    assert told["images"] == RECIPE.held_out
    assert 0 <= told["name_top1"]["value"] <= told["name_top5"]["value"] <= 1


def test_the_same_recipe_gives_the_same_bytes(judge, source, tmp_path):
    assert emoji_judge(source, Workplace(tmp_path), RECIPE).digest == judge.digest


def test_candidates_are_the_best_known_first_and_a_thousand_at_most(source):
    images = read_emoji(source.path)
    assert candidates(images, 0) == sorted(set(images.names))
