"""The judge's world: a folder that the extractor opens, its accuracy beside it, the same bytes again."""

import json

import pytest
import torch
from transformers import CLIPModel

from agd_core.evaluation.extractors import open_extractor
from agd_core.pretraining.emoji.attribution import ATTRIBUTION
from agd_core.pretraining.emoji.packages import PACKAGES, may_ship
from flows.stages.emoji_source import emoji_source, read_emoji
from flows.stages.pretrain_emoji_judge import ACCURACY, candidates, judged, train_judge
from flows.workplace import Workplace
from tests.emoji_packages import THINGS, write_packages
from tests.emoji_pictures import tiny_judge_recipe

RECIPE = tiny_judge_recipe(steps=3, batch_size=4, held_out=3)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emoji")
    return read_emoji(emoji_source(write_packages(folder / "packages"), Workplace(folder), held_out=2).path)


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("judge"))
    told = train_judge(images, "these", place, RECIPE)
    assert told["artefacts"] == {"emoji-judge": str(place.output / "emoji-judge")}
    assert told["measured"]["judge_images"] == RECIPE.held_out
    return place.output / "emoji-judge"


def test_the_folder_is_an_extractors_with_its_real_images(folder, images):
    opened = open_extractor("emoji-judge", str(folder), None, torch.device("cpu"))
    assert opened.words.styles == sorted(set(images.styles) - {"openmoji"})
    assert opened.words.names == sorted(name.replace("-", " ") for name in THINGS)
    assert opened.shipped_reference().statistics.samples == len(images.of("train", "held-out", common_only=True))
    assert set(judged(opened, images.of_styles(may_ship))) == {"name_top1", "name_top5", "style_top1"}
    assert isinstance(CLIPModel.from_pretrained(folder), CLIPModel)


def test_it_learns_nothing_whose_licence_would_be_its_own_and_names_the_rest(folder, images):
    said = (folder / ATTRIBUTION).read_text()
    assert "openmoji" in images.styles
    assert [package.name for package in PACKAGES if f"/{package.name} |" not in said] == ["openmoji"]


def test_its_accuracy_on_pictures_that_it_never_saw_lies_beside_it(folder):
    told = json.loads((folder / ACCURACY).read_text())
    assert told["images"] == RECIPE.held_out
    assert 0 <= told["name_top1"]["value"] <= told["name_top5"]["value"] <= 1


def test_the_same_recipe_gives_the_same_bytes(folder, images, tmp_path):
    train_judge(images, "these", Workplace(tmp_path), RECIPE)
    files = sorted(path.name for path in folder.iterdir())
    assert "model.safetensors" in files
    assert [(tmp_path / "emoji-judge" / name).read_bytes() for name in files] == [
        (folder / name).read_bytes() for name in files
    ]


def test_candidates_are_the_best_known_first_and_a_thousand_at_most(images):
    assert candidates(images, 0) == sorted(set(images.names))
