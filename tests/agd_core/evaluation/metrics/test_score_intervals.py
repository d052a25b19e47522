"""The other intervals on synthetic Gaussians, a reduced benchmarks/interval_coverage.py."""

import pytest

from benchmarks.interval_coverage import World, coverage


@pytest.mark.parametrize("metric", ["inception-score", "precision-recall", "agreement"])
def test_intervals_hold_the_truth_in_90_to_99_of_100_trials(metric):
    for line in coverage(World(200, 16), 200, 200, (metric,)):
        assert 0.90 <= line.held <= 0.99
        assert 0.8 < line.claimed < 1.4


def test_the_kernel_distances_interval_does_too():
    """Fewer trials, since it is slow: 85 to 100 is where 95 lands among 60."""
    (line,) = coverage(World(100, 16, decay=0.5), 60, 60, ("kid",))
    assert 0.85 <= line.held <= 1.0
    assert 0.75 < line.claimed < 1.35
