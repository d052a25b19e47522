import math

import pytest
import torch
from torch_fidelity import metric_fid

from agd_core.basics.seeding import generator
from agd_core.evaluation.metrics.frechet import FeatureStatistics, frechet_distance


def gaussian(mean, covariance):
    return FeatureStatistics(*(torch.tensor(value, dtype=torch.float64) for value in (mean, covariance)), 1000)


def features(samples, width, *, seed=0, scale=1.0, shift=0.0):
    mixing = torch.randn(width, width, generator=generator(seed, "mixing"))
    return shift + scale * torch.randn(samples, width, generator=generator(seed, "features")) @ mixing


COVARIANCE = [[2.0, 0.5, 0.0], [0.5, 1.0, -0.3], [0.0, -0.3, 0.7]]


def test_equal_covariances_leave_the_squared_distance_of_the_means():
    a, b = gaussian([0.0, 1.0, 2.0], COVARIANCE), gaussian([3.0, 1.0, -2.0], COVARIANCE)
    assert frechet_distance(a, b) == pytest.approx(25.0, abs=1e-9)


def test_diagonal_covariances_have_a_closed_form():
    variances = [(4.0, 9.0), (1.0, 0.25), (0.0, 2.0)]
    a = gaussian([0.0] * 3, [[v[0] * (i == j) for j in range(3)] for i, v in enumerate(variances)])
    b = gaussian([1.0] * 3, [[v[1] * (i == j) for j in range(3)] for i, v in enumerate(variances)])
    expected = 3 + sum((math.sqrt(p) - math.sqrt(q)) ** 2 for p, q in variances)
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-9)


def test_a_common_rotation_changes_nothing():
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator(3)).double()).Q
    a, b = gaussian([0.0] * 3, COVARIANCE), gaussian([1.0, 2.0, 3.0], torch.eye(3).tolist())
    turned = [FeatureStatistics(rotation @ s.mean, rotation @ s.covariance @ rotation.T, s.samples) for s in (a, b)]
    assert frechet_distance(*turned) == pytest.approx(frechet_distance(a, b), abs=1e-9)


@pytest.mark.parametrize("width", [1, 8, 64])
def test_the_distance_to_itself_is_zero(width):
    x = FeatureStatistics.of(features(10 * width + 5, width) / width)
    assert abs(frechet_distance(x, x)) < 1e-9


def test_it_is_symmetric_and_positive():
    a = FeatureStatistics.of(features(200, 16))
    b = FeatureStatistics.of(features(150, 16, seed=1, scale=1.5, shift=0.2))
    assert frechet_distance(a, b) > 0
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.5, 0.2), (0.3, 5.0)])
def test_it_agrees_with_torch_fidelity(scale, shift):
    samples = features(300, 24), features(400, 24, seed=1, scale=scale, shift=shift)
    a, b = map(FeatureStatistics.of, samples)
    theirs = metric_fid.fid_statistics_to_metric(*map(metric_fid.fid_features_to_statistics, samples), verbose=False)
    assert frechet_distance(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_statistics_are_the_unbiased_float64_ones():
    x = features(50, 6, shift=100.0)
    statistics = FeatureStatistics.of(x)
    assert statistics.samples == 50
    assert statistics.covariance.dtype == torch.float64
    assert torch.allclose(statistics.mean, x.double().mean(0), atol=1e-12)
    assert torch.allclose(statistics.covariance, x.double().T.cov(), atol=1e-10)


def test_weights_equal_repeated_rows():
    x, counts = features(20, 5), torch.tensor([0, 1, 2, 3] * 5)
    weighted = FeatureStatistics.weighted(x, counts.double())
    repeated = FeatureStatistics.of(x.repeat_interleave(counts, 0))
    assert weighted.samples == repeated.samples == 30
    assert torch.allclose(weighted.mean, repeated.mean, atol=1e-12)
    assert torch.allclose(weighted.covariance, repeated.covariance, atol=1e-12)


def test_the_order_of_the_samples_does_not_matter():
    x, reference = features(100, 8), FeatureStatistics.of(features(100, 8, seed=1))
    shuffled = x[torch.randperm(100, generator=generator(0))]
    expected = frechet_distance(FeatureStatistics.of(x), reference)
    assert frechet_distance(FeatureStatistics.of(shuffled), reference) == pytest.approx(expected, rel=1e-9)


def test_fewer_samples_than_features_give_a_finite_true_distance():
    x = features(6, 20)
    a, b = FeatureStatistics.of(x), FeatureStatistics.of(x + 2.0)
    assert torch.linalg.matrix_rank(a.covariance) == 5
    assert frechet_distance(a, b) == pytest.approx(20 * 4.0, rel=1e-5)
    assert abs(frechet_distance(a, a)) < 1e-4


def test_a_constant_feature_has_the_distance_of_a_point():
    point, cloud = FeatureStatistics.of(torch.ones(4, 3)), gaussian([1.0] * 3, COVARIANCE)
    assert frechet_distance(point, cloud) == pytest.approx(3.7, abs=1e-9)
