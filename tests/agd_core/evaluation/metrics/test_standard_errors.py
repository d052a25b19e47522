"""Claimed standard errors against the real spread of many sample sets."""

import math
import statistics

import pytest
import torch

from agd_core.basics.seeding import generator
from agd_core.evaluation.metrics.frechet import FeatureStatistics, frechet_distance
from agd_core.evaluation.metrics.standard_errors import accuracy_standard_error
from agd_core.evaluation.metrics.subsets import extrapolated_distance

CLASSES, WIDTH = 5, 6
CENTRES = 3 * torch.randn(CLASSES, WIDTH, generator=generator("centres"))
REFERENCE = FeatureStatistics.of(CENTRES.repeat(2000, 1) + torch.randn(2000 * CLASSES, WIDTH, generator=generator(0)))


def sample_set(seed, per_class):
    labels = torch.arange(CLASSES).repeat(per_class)
    noise = torch.randn(len(labels), WIDTH, generator=generator(seed, "set"))
    return 0.3 + CENTRES[labels] + 1.2 * noise, labels


@pytest.mark.parametrize("per_class", [20, 40])
def test_the_distances_error_is_the_spread_of_balanced_sets(per_class):
    sets = [sample_set(seed, per_class) for seed in range(100)]
    spread = statistics.stdev(frechet_distance(REFERENCE, FeatureStatistics.of(features)) for features, _ in sets)
    claimed = [extrapolated_distance(*one, REFERENCE, 20, 0).standard_error for one in sets[:10]]
    assert 0.8 < statistics.fmean(claimed) / spread < 1.35


@pytest.mark.parametrize(("accuracy", "images"), [(0.5, 1000), (0.9, 1000), (0.98, 5000)])
def test_the_accuracys_error_is_the_binomial_one(accuracy, images):
    plain = math.sqrt(accuracy * (1 - accuracy) / images)
    assert accuracy_standard_error(accuracy, images) == pytest.approx(plain, rel=0.05)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_it_never_claims_certainty(accuracy):
    assert 0.01 < accuracy_standard_error(accuracy, 60) < 0.05
