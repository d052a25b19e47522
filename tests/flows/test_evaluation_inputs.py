"""What an evaluation refuses before any long work, and what its protocol says of versions."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from agd_core.basics.errors import InputError, NumericError
from agd_core.evaluation.extractors import FashionFeatures
from flows.instruments import check_evaluation
from flows.presets import load_config
from flows.run import Run
from flows.stages import evaluate as stage
from flows.stages.distill import distill
from flows.stages.features import features
from flows.stages.sample import COST, Cell, sample
from flows.workplace import Workplace
from tests.conftest import SMALL

CPU = torch.device("cpu")


def write_images(folder, *shapes):
    folder.mkdir()
    for number, shape in enumerate(shapes):
        Image.fromarray(np.full(shape, number, np.uint8)).save(folder / f"{number}.png")
    return str(folder)


def checked(teacher, *changes):
    return check_evaluation(load_config("fashion-dit", [*SMALL, *changes]).evaluate, teacher)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["evaluate.judge_weights=/no/file"], "judge_weights needs a judge"),
        (["evaluate.judge=efficientnet-lite0", "evaluate.judge_weights=/no/file"], "/no/file cannot be read: No such"),
        (["evaluate.reference_crop=32"], "reference_crop needs images in evaluate.reference to be cropped"),
        (["evaluate.extractor_sha256=12345678"], "expected one that begins with 12345678"),
        (["evaluate.reference=[/no/folder]"], "/no/folder"),
    ],
)
def test_it_is_refused_in_one_line(teacher, changes, message):
    with pytest.raises(InputError, match=message) as refused:
        checked(teacher, *changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(32, 32), (28, 32)], "reference_crop"),
        ([(32, 32)], "holds one image; two or more are needed"),
        ([(28, 28), (28, 28)], "takes 32 x 32 x 1 images, not 28 x 28 x 1"),
        ([(32, 32, 3), (32, 32, 3)], "takes 32 x 32 x 1 images, not 32 x 32 x 3"),
    ],
)
def test_real_images_that_cannot_be_compared_are_refused_at_once(teacher, tmp_path, shapes, message):
    folder = write_images(tmp_path / "real", *shapes)
    with pytest.raises(InputError, match=message):
        checked(teacher, f"evaluate.reference=[{folder}]")


def test_images_that_fit_are_taken(teacher, tmp_path):
    checked(teacher, f"evaluate.reference=[{write_images(tmp_path / 'real', (32, 32), (32, 32))}]")


def test_features_that_are_no_numbers_are_named(teacher, small_config, tmp_path):
    class Damaged(FashionFeatures):
        def extract(self, images):
            found = super().extract(images)
            return type(found)(found.features * float("nan"), found.logits)

    place = Workplace(tmp_path)
    samples = sample(Run(small_config, place, teacher), Cell(1.0, 2, "ddim"), "bare")
    with pytest.raises(NumericError, match=r"features of bare that are no numbers; its weights may be damaged"):
        features(Damaged(None, CPU), samples, place, "bare")


def test_a_protocol_names_the_versions_that_sampled(tmp_path, monkeypatch):
    config = load_config("fashion-dit", [*SMALL, "methods=[{kind: agd-offset}]", "sample.curve_steps=[]"])
    place = Workplace(tmp_path)
    before = distill(Run(config, place), "test").metrics["rows"][0]["protocol"]["libraries"]
    assert all("(sampling)" not in name for name in before)
    upgraded = {**stage.library_versions(), "torch": "99.0"}
    monkeypatch.setattr(stage, "library_versions", lambda: upgraded)
    changed = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"neighbours": 5})})
    after = distill(Run(changed, place), "test").metrics["rows"][0]["protocol"]["libraries"]
    assert after["torch"] == "99.0"
    assert after["torch (sampling)"] == before["torch"]
    cost = next(tmp_path.glob(f"artefacts/samples-*/{COST}"))
    assert json.loads(cost.read_text())["libraries"]["torch"] == before["torch"]
