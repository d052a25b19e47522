"""The mean over seeds, and whether its interval keeps what it promises."""

import math
from statistics import mean, stdev

import numpy as np
import pytest
from scipy.stats import t as student

from agd_core.evaluation.metrics import Score
from agd_core.evaluation.metrics.standard_errors import student_95
from agd_core.evaluation.over_seeds import mean_over_seeds, over_seeds
from agd_core.evaluation.relative_error import RELATIVE_ERROR, with_relative_error
from tests.result_rows import as_row, as_score, row, score


def scores(*values, error=0.02, better="lower", **changes):
    return [as_score(score(value, error, better, **changes)) for value in values]


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 9, 10, 99])
def test_the_quantile_of_student_is_scipys(degrees):
    assert student_95(degrees) == pytest.approx(student.ppf(0.975, degrees), abs=1e-8)


def test_one_seed_is_what_was_measured():
    (one,) = scores(0.7)
    assert mean_over_seeds("fd", [one]) == one
    assert over_seeds([as_row(row("lora-seed-3"))], "lora").model_dump() == as_row(row("lora")).model_dump()


def test_the_interval_is_that_of_sampling_and_of_the_seeds_as_squares():
    values = (0.70, 0.74, 0.69)
    found = mean_over_seeds("fd", scores(*values))
    seeds = student.ppf(0.975, 2) * stdev(values) / math.sqrt(3)
    margin = math.hypot(1.96 * 0.02, seeds)
    assert found.value == pytest.approx(mean(values))
    assert (found.low, found.high) == pytest.approx((mean(values) - margin, mean(values) + margin))
    assert found.standard_error == pytest.approx(margin / 1.96)
    assert f"3 seeds, standard deviation {stdev(values):.4g}" in found.method


def test_it_covers_the_truth_at_least_as_often_as_it_says():
    """Seeds differ by a spread of their own; the noise of sampling is one for all, with a part of each."""
    random, hits, rounds = np.random.default_rng(0), 0, 2000
    for _ in range(rounds):
        shared, seeds, own = random.normal(size=3)[0] * 0.03, random.normal(size=3) * 0.02, random.normal(size=3) * 0.01
        error = math.hypot(0.03, 0.01)
        found = mean_over_seeds("fd", scores(*(1 + shared + seeds + own), error=error))
        hits += found.low <= 1 <= found.high
    assert 0.95 <= hits / rounds <= 0.995


def test_an_interval_holds_no_value_that_no_measurement_has():
    found = mean_over_seeds("accuracy", scores(0.99, 0.96, 1.0, error=0.004, better="higher"))
    assert found.high == 1.0 > found.value > found.low


def test_what_is_no_number_or_has_no_error_once_has_none_in_all():
    lost = mean_over_seeds("fd", [*scores(0.7), Score(value=None, better="lower")])
    assert (lost.value, lost.standard_error, lost.better) == (None, None, "lower")
    unknown = mean_over_seeds("fd", scores(0.7, 0.9, error=None))
    assert (unknown.value, unknown.low, unknown.standard_error) == (pytest.approx(0.8), None, None)


def test_a_warning_is_said_once():
    found = mean_over_seeds("fd", scores(0.7, 0.8, warnings=["few images"]))
    assert found.warnings == ("few images",)


def test_rows_of_seeds_become_one_under_another_name():
    rows = [as_row(row(f"lora-seed-{seed}", {"fd": score(value)})) for seed, value in enumerate((0.7, 0.8))]
    rows[1] = rows[1].model_copy(update={"images_per_second": 3.0})
    found = over_seeds(rows, "lora")
    assert (found.name, found.value("fd"), found.images_per_second) == ("lora", pytest.approx(0.75), 1.5)
    assert found.protocol == rows[0].protocol


def test_what_one_seed_lacks_has_no_mean():
    rows = [as_row(row("a", measured)) for measured in ({"fd": score(1), "psnr": score(9)}, {"fd": score(2)})]
    assert set(over_seeds(rows, "a").scores) == {"fd"}


def relative(mine, theirs, name="lora"):
    rows = [as_row(row(name, {"paired_mse": one})) for one in (mine, theirs)]
    bare = rows[1].model_copy(update={"method": "none", "name": "no guidance"})
    return with_relative_error(rows[0], bare).scores.get(RELATIVE_ERROR)


def test_the_relative_error_is_a_share_with_the_error_of_both():
    found = relative(score(0.02, 0.001), score(0.1, 0.004))
    error = 0.2 * math.hypot(0.001 / 0.02, 0.004 / 0.1)
    assert (found.value, found.standard_error) == (pytest.approx(0.2), pytest.approx(error))
    assert (found.low, found.high) == pytest.approx((0.2 - 1.96 * error, 0.2 + 1.96 * error))
    assert relative(score(0.001, 0.002), score(0.1, 0.004)).low == 0.0


def test_there_is_none_of_nothing_of_no_number_or_of_a_yardstick():
    assert relative(score(0.02), score(0.0)) is None
    assert relative({**score(0.02), "value": None, "low": None, "high": None}, score(0.1)) is None
    assert relative(score(0.0), score(0.1), name="CFG") is None
    assert relative(score(0.1), score(0.1), name="no guidance") is None
    unknown = relative(score(0.02, None), score(0.1))
    assert (unknown.value, unknown.low) == (pytest.approx(0.2), None)
