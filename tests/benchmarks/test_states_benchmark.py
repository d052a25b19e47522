"""What the benchmark of guided and noised states says of its errors."""

import math

import pytest

from benchmarks.states import GUIDED, NONE, Interval, ratio_over, rows_of, table

METHOD, NOISED = "agd-offset", "noised, real"


def test_an_interval_is_students():
    """Three seeds: 4.303 standard errors to either side."""
    found = Interval.over([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.high - found.mean == pytest.approx(4.302652 / math.sqrt(3))
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert Interval.over([1.0]) == Interval(1.0, None, None)


def test_the_ratio_is_taken_seed_by_seed():
    """Seeds that differ much say much where the ratio is the same in all of them."""
    found = ratio_over([0.2, 2.0, 20.0], [0.1, 1.0, 10.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2, 2, 2))
    assert ratio_over([0.0, 1e-12], [0.0, 1e-12]) is None


@pytest.mark.parametrize(
    ("noised", "verdict"),
    [((0.2, 0.21, 0.22), "better"), ((0.05, 0.051, 0.052), "worse"), ((0.05, 0.1, 0.2), "not told apart")],
)
def test_the_verdict_is_about_guided_states(noised, verdict):
    found = {(METHOD, GUIDED, 2.0): [0.1, 0.1, 0.1], (METHOD, NOISED, 2.0): list(noised)}
    guided, other = rows_of(found)
    assert (guided.over_guided, guided.verdict) == (None, "")
    assert other.verdict == verdict
    assert f"guided {verdict}" in table([guided, other])


def test_the_table_has_a_line_per_method_and_states_and_a_column_per_scale():
    found = {(NONE, "", scale): [0.0 * scale, 0.1] for scale in (1.0, 3.5)}
    found |= {(METHOD, states, scale): [scale, scale] for states in (GUIDED, NOISED) for scale in (1.0, 3.5)}
    found[METHOD, NOISED, 1.0] = [0.0, 0.0]
    errors, ratios = table(rows_of(found)).strip().split("\n\n")
    assert errors.splitlines()[0] == "| method | states | 1 | 3.5 |"
    assert [line.split(" | ")[0] for line in errors.splitlines()[2:]] == [f"| {NONE}", *[f"| {METHOD}"] * 2]
    assert errors.splitlines()[3].endswith("| 1.0000 ± 0.0000 | 3.5000 ± 0.0000 |")
    (line,) = ratios.splitlines()[2:]
    assert line == f"| {METHOD} | {NOISED} | - | 1.00 (1.00 to 1.00): guided not told apart |"
