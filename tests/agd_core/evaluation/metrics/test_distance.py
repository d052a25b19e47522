"""The metric `frechet`: stable at low rank, extrapolated without bias, intervals that hold the truth."""

import dataclasses
import math

import pytest
import torch

from agd_core.basics.errors import NumericError
from agd_core.basics.seeding import generator
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.metrics import (
    METRICS,
    FeatureStatistics,
    Measured,
    Reference,
    frechet_distance,
)
from agd_core.evaluation.metrics.subsets import _RootedFeatures, extrapolated_distance
from agd_core.memory.peak_memory import peak_memory
from benchmarks.interval_coverage import World, coverage
from tests.soak import short

CONFIG = EvaluateConfig(distance_subsets=20)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator("distance", seed)).double()


def test_gaussians_that_share_their_axes_have_a_closed_form():
    axes, a, b = torch.linalg.qr(normal(12, 12)).Q, normal(12).exp(), normal(12, seed=1).exp()
    shift = normal(12, seed=2)
    first = FeatureStatistics(torch.zeros(12).double(), axes * a @ axes.T, 1000)
    second = FeatureStatistics(shift, axes * b @ axes.T, 1000)
    expected = float(shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum())
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)


def steep(width):
    return torch.cat([torch.ones(1), torch.full((width - 1,), 1e-7)]).double()


def test_small_variances_beside_a_large_one_are_not_lost():
    zero, variances = torch.zeros(1000).double(), steep(1000)
    axes = torch.linalg.qr(normal(1000, 1000)).Q
    for turned in (torch.eye(1000).double(), axes):
        x, larger = (FeatureStatistics(zero, turned * v @ turned.T, 5000) for v in (variances, 4 * variances))
        assert frechet_distance(x, larger) == pytest.approx(1.0000999, abs=1e-8)
        assert abs(frechet_distance(x, x)) < 1e-10


def test_nor_are_they_in_distances_of_subsets():
    """Samples with exactly the real covariance, doubled: every route gives the sum of variances."""
    white = torch.linalg.qr(normal(800, 200) - normal(800, 200).mean(dim=0)).Q * math.sqrt(799)
    x, labels = white * steep(200).sqrt(), torch.zeros(800).long()
    real = FeatureStatistics.of(x)
    found = extrapolated_distance(2 * x, labels, real, 20, 0)
    assert found.distance == pytest.approx(1 + 199e-7, abs=1e-8)
    assert extrapolated_distance(x, labels, real, 20, 0).distance == pytest.approx(0.0, abs=1e-10)


def test_distances_of_subsets_are_those_of_their_statistics():
    x, real = normal(400, 50) * steep(50).sqrt(), FeatureStatistics.of(normal(900, 50, seed=1) * steep(50).sqrt())
    quarter = torch.arange(400) % 4
    subsets = torch.tensor([[1.0, 1, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]]).double()
    found = _RootedFeatures(x, real).distances(subsets, quarter)
    rows = [torch.isin(quarter, subset.nonzero().flatten()) for subset in subsets]
    expected = [frechet_distance(real, FeatureStatistics.of(x[chosen])) for chosen in rows]
    assert found.tolist() == pytest.approx(expected, abs=1e-11)


def test_features_that_are_no_numbers_are_refused_in_one_line():
    x, labels, real = normal(20, 3), torch.zeros(20).long(), FeatureStatistics.of(normal(50, 3, seed=1))
    x[3, 1] = math.nan
    with pytest.raises(NumericError, match=r"^features hold NaN or infinity; every value must be a finite number$"):
        extrapolated_distance(x, labels, real, 20, 0)
    with pytest.raises(NumericError, match="NaN or infinity"):
        frechet_distance(FeatureStatistics.of(x), real)


def test_only_one_float64_copy_of_the_features_is_made():
    """And quarters of it come and go."""
    x, labels, real = normal(32_768, 64).float(), torch.zeros(32_768).long(), FeatureStatistics.of(normal(1000, 64))
    copy = x.numel() * 8
    assert copy < peak_memory(lambda: extrapolated_distance(x, labels, real, 20, 0), torch.device("cpu"))[0] < 2 * copy


@pytest.mark.parametrize(("samples", "width"), [(5, 40), (30, 200)])
@pytest.mark.parametrize("real", [20, 500])
def test_fewer_samples_than_features_agree_with_singular_values(samples, width, real):
    """The trace of the root is the nuclear norm of the product of both sets, which needs no covariance at all."""
    mixing = normal(width, width, seed=9)
    a, b = normal(samples, width) @ mixing, 0.5 + normal(real, width, seed=1) @ mixing
    centred = [x - x.mean(dim=0) for x in (a, b)]
    scaled = [x / math.sqrt(len(x) - 1) for x in centred]
    nuclear = torch.linalg.svdvals(scaled[0] @ scaled[1].T).sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + sum(x.square().sum() for x in scaled) - 2 * nuclear
    statistics = FeatureStatistics.of(a), FeatureStatistics.of(b)
    assert frechet_distance(*statistics) == pytest.approx(float(expected), rel=1e-6)
    assert frechet_distance(*reversed(statistics)) == pytest.approx(float(expected), rel=1e-6)


def test_rounding_of_true_zeros_is_no_distance():
    x = FeatureStatistics.of(normal(10, 400))
    assert abs(frechet_distance(x, x)) < 1e-6 * float(x.covariance.trace())


@pytest.mark.parametrize(("samples", "width"), [(203, 16), (30, 64), (5, 3)])
def test_the_extrapolation_starts_at_the_distance(samples, width):
    x, labels = normal(samples, width).float(), torch.arange(samples) % 3
    real = FeatureStatistics.of(0.3 + normal(500, width, seed=1))
    found = extrapolated_distance(x, labels, real, 20, 0)
    assert found.distance == pytest.approx(frechet_distance(real, FeatureStatistics.of(x)), rel=1e-8)
    assert found == extrapolated_distance(x, labels, real, 20, 0)
    assert found != extrapolated_distance(x, labels, real, 20, 1)


def test_the_influence_is_the_derivative_of_the_distance():
    """Leaving one sample out shifts the distance by its influence over n - 1: so the jackknife's error is the same."""
    x, labels, real = normal(400, 5).float(), torch.zeros(400).long(), FeatureStatistics.of(1 + normal(999, 5, seed=1))
    left_out = [frechet_distance(real, FeatureStatistics.of(torch.cat([x[:i], x[i + 1 :]]))) for i in range(400)]
    jackknife = math.sqrt(399 / 400 * float((torch.tensor(left_out).double()).var()) * 399)
    assert extrapolated_distance(x, labels, real, 100, 0).standard_error == pytest.approx(jackknife, rel=0.03)


def test_infinity_is_where_more_images_lead():
    world = World(400, 32, shift=0.5)
    scores = METRICS["frechet"].scores(world.draw(0), CONFIG)
    larger = METRICS["frechet"].scores(World(6400, 32, shift=0.5).draw(1), CONFIG)
    fd, infinity = scores["fd"].value, scores["fd_infinity"].value
    assert fd > larger["fd"].value > larger["fd_infinity"].value - larger["fd_infinity"].standard_error
    assert infinity == pytest.approx(world.distance, abs=3 * scores["fd_infinity"].standard_error)
    assert fd - world.distance > 3 * scores["fd"].standard_error


@pytest.mark.parametrize(
    "world",
    short([World(400, 16, classes=1), World(400, 32, decay=1.0, shift=0.3), World(400, 16, shift=0.0, spread=0.0)]),
    ids=["one class", "few axes matter", "the real distribution"],
)
def test_intervals_hold_the_truth_in_90_to_99_of_100_trials(world):
    """A reduced benchmarks/interval_coverage.py."""
    found = {line.metric: line for line in coverage(world, 200, 200, ("frechet",))}
    for name in ("fd", "fd_infinity"):
        assert 0.90 <= found[name].held <= 0.99
        assert 0.85 < found[name].claimed < 1.3


@pytest.mark.parametrize("images", [100, 199])
def test_fewer_than_four_images_per_feature_give_no_interval_at_infinity(images):
    scores = METRICS["frechet"].scores(World(images, 50, classes=1).draw(0), CONFIG)
    assert scores["fd"].warnings == ()
    assert scores["fd"].low < scores["fd"].value < scores["fd"].high
    assert len(scores["fd_infinity"].warnings) == 1
    assert scores["fd_infinity"].low is None


def test_four_images_per_feature_are_enough():
    score = METRICS["frechet"].scores(World(200, 50, classes=1).draw(0), CONFIG)["fd_infinity"]
    assert score.warnings == ()
    assert score.low < score.value < score.high


def test_few_images_are_said_to_have_narrow_intervals():
    assert "fewer than 100" in METRICS["frechet"].scores(World(60, 4).draw(0), CONFIG)["fd"].warnings[0]


def test_the_warning_names_images_and_features():
    measured = World(150, 100, classes=1).draw(0)
    few = dataclasses.replace(measured.reference.statistics, samples=120)
    reference = Reference(few, measured.reference.features, "few real images")
    warnings = METRICS["frechet"].scores(dataclasses.replace(measured, reference=reference), CONFIG)["fd"].warnings
    assert warnings == (
        "150 images for 100 features: fewer than twice as many; the distance is biased upwards",
        "120 real images for 100 features: fewer than twice as many; the distance is biased upwards",
    )


def test_without_features_or_real_images_there_is_no_distance():
    measured = World(20, 4).draw(0)
    for nothing in (
        Measured(measured.samples, None, None),
        Measured(dataclasses.replace(measured.samples, features=None), None, measured.reference),
        World(3, 4).draw(0),
    ):
        assert METRICS["frechet"].scores(nothing, CONFIG) == {}
