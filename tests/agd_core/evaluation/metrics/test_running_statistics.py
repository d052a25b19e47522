"""Statistics that come in parts: exact, whatever the parts are."""

import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.basics.seeding import generator
from agd_core.evaluation.metrics import FeatureStatistics, RunningStatistics, frechet_distance

FEATURES = 3 + torch.randn(203, 6, generator=generator("running")) @ torch.randn(6, 6, generator=generator("mixing"))
REFERENCE = FeatureStatistics.of(torch.randn(500, 6, generator=generator("real")))
DISTANCE = frechet_distance(REFERENCE, FeatureStatistics.of(FEATURES))


def gathered(features, batch):
    running = RunningStatistics()
    for rows in torch.split(features, batch):
        running.update(rows)
    return running


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_the_batch_size_does_not_matter(batch):
    statistics = gathered(FEATURES, batch).result()
    assert frechet_distance(REFERENCE, statistics) == pytest.approx(DISTANCE, rel=1e-12)
    assert statistics.samples == 203


def test_an_empty_batch_changes_nothing():
    running = gathered(FEATURES, 64)
    before = running.result()
    running.update(FEATURES[:0])
    assert torch.equal(running.result().covariance, before.covariance)


@pytest.mark.parametrize("batch", [1, 7, 203])
def test_a_large_mean_costs_no_digits(batch):
    shifted = FEATURES.double() + 1e7
    covariance = gathered(shifted, batch).result().covariance
    exact = (shifted - 1e7).T.cov()
    assert torch.allclose(covariance, exact, rtol=1e-7, atol=1e-7)
    naive = shifted.T @ shifted / 202 - torch.outer(shifted.mean(0), shifted.mean(0)) * 203 / 202
    assert not torch.allclose(naive, exact, rtol=1e-3, atol=1e-3)


def test_another_width_is_refused():
    running = gathered(FEATURES, 64)
    with pytest.raises(InputError, match=r"width 5 .* width 6"):
        running.update(FEATURES[:, :5])


@pytest.mark.parametrize("samples", [0, 1])
def test_fewer_than_two_images_are_refused(samples):
    with pytest.raises(InputError, match=f"two images or more; found {samples}"):
        FeatureStatistics.of(FEATURES[:samples])


def test_the_root_is_computed_once():
    statistics = gathered(FEATURES, 64).result()
    assert statistics.root is statistics.root
    assert torch.allclose(statistics.root @ statistics.root, statistics.covariance, atol=1e-10)
