"""Scores of few images say so; features and logits that are no numbers are refused in one line."""

import dataclasses
import math

import pytest

from agd_core.basics.errors import NumericError
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.metrics import METRICS
from benchmarks.interval_coverage import World

CONFIG = EvaluateConfig(kid_subsets=2)
NAMES = {
    "kid": ("kid",),
    "inception-score": ("inception_score",),
    "precision-recall": ("precision", "recall"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("metric", NAMES)
@pytest.mark.parametrize(("images", "said"), [(20, True), (99, True), (100, False)])
def test_fewer_than_100_images_carry_a_warning(metric, images, said):
    scores = METRICS[metric].scores(World(images, 8).draw(0), CONFIG)
    assert set(scores) == set(NAMES[metric])
    for score in scores.values():
        assert [warning.startswith(f"{images} images") for warning in score.warnings] == [True] * said


@pytest.mark.filterwarnings("ignore")
def test_small_subsets_of_many_images_carry_one_too():
    scores = METRICS["kid"].scores(World(300, 8).draw(0), CONFIG.model_copy(update={"kid_subset_size": 50}))
    assert scores["kid"].warnings == ("50 images per subset: too few for a kernel distance to say much",)


@pytest.mark.parametrize("metric", ["frechet", *NAMES])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_no_number_is_refused_in_one_line(metric, broken):
    measured = World(40, 4).draw(0)
    features, logits = measured.samples.features.clone(), measured.samples.logits.clone()
    features[3, 1] = logits[3, 1] = broken
    samples = dataclasses.replace(measured.samples, features=features, logits=logits)
    with pytest.raises(NumericError, match=r"^(features|logits) hold NaN or infinity; every value .* number$"):
        METRICS[metric].scores(dataclasses.replace(measured, samples=samples), CONFIG)


@pytest.mark.parametrize("metric", ["kid", "precision-recall"])
def test_so_are_real_images(metric):
    measured = World(40, 4).draw(0)
    features = measured.reference.features.clone()
    features[0, 0] = math.nan
    reference = dataclasses.replace(measured.reference, features=features)
    with pytest.raises(NumericError, match="features of real images hold NaN"):
        METRICS[metric].scores(dataclasses.replace(measured, reference=reference), CONFIG)
