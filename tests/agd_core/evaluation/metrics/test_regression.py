"""The rule on synthetic nights: what it alarms on, what it leaves alone, and how often it is wrong."""

import json
import math

import numpy as np
import pytest

from agd_core.evaluation.metrics.regression import (
    BASELINE_NIGHTS,
    FALSE_ALARM_RATE,
    THRESHOLD,
    Measurement,
    judge_night,
    judge_nights,
)


def nights(*values, error=1.0):
    return [Measurement(f"2026-01-{day:02}", value, error) for day, value in enumerate(values, start=1)]


def outcomes(measurements, better="lower"):
    return [verdict.outcome for verdict in judge_nights(measurements, better)]


def test_the_first_night_is_only_a_baseline():
    (verdict,) = judge_nights(nights(5.0), "lower")
    assert (verdict.outcome, verdict.z, verdict.band, verdict.regressed) == ("baseline", None, None, False)


def test_the_second_night_is_judged_by_the_first():
    verdict = judge_nights(nights(10.0, 13.0), "lower")[1]
    assert verdict.z == pytest.approx(3 / math.sqrt(2))
    assert verdict.band.nights == ("2026-01-01",)
    assert (verdict.band.low, verdict.band.high) == pytest.approx(
        (10 - THRESHOLD * math.sqrt(2), 10 + THRESHOLD * math.sqrt(2))
    )


@pytest.mark.parametrize(("better", "worse", "improved"), [("lower", 20.0, 0.0), ("higher", 0.0, 20.0)])
def test_only_the_bad_direction_is_an_alarm(better, worse, improved):
    assert outcomes(nights(10.0, worse), better) == ["baseline", "regressed"]
    assert outcomes(nights(10.0, improved), better) == ["baseline", "improved"]


def test_the_alarm_begins_exactly_beyond_the_band():
    edge = judge_night(nights(10.0), Measurement("2026-01-02", 0.0, 1.0), "lower").band.high
    inside, outside = (judge_night(nights(10.0), Measurement("x", edge + d, 1.0), "lower") for d in (-1e-9, 1e-9))
    assert (inside.regressed, outside.regressed) == (False, True)


def test_the_baseline_is_weighted_by_precision():
    baseline = [Measurement("a", 10.0, 1.0), Measurement("b", 14.0, 3.0)]
    band = judge_night(baseline, Measurement("c", 10.0, 0.0), "lower").band
    assert band.centre == pytest.approx((10 / 1 + 14 / 9) / (1 + 1 / 9))
    claimed, seen = 1 / (1 + 1 / 9), 8.0 - (1 + 9) / 2
    assert band.standard_error == pytest.approx(math.sqrt(claimed + seen * 1.5))


def test_nights_that_differ_by_more_than_they_claim_widen_the_band():
    claimed = judge_nights(nights(*[10.0] * 5, 16.0), "lower")[-1]
    spread = judge_nights(nights(10.0, 14.0, 6.0, 13.0, 7.0, 16.0), "lower")[-1]
    assert claimed.regressed
    assert not spread.regressed
    assert spread.band.standard_error > 3 * claimed.band.standard_error


def test_the_baseline_is_the_first_nights_without_the_alarms():
    values = [10.0, 99.0, 10.1, 9.9, 10.0, 98.0, 10.2, 9.8, 10.0]
    verdicts = judge_nights(nights(*values), "lower")
    assert [verdict.regressed for verdict in verdicts] == [value > 90 for value in values]
    assert verdicts[-1].band.nights == tuple(f"2026-01-{day:02}" for day in (1, 3, 4, 5, 7))
    assert len(verdicts[-1].band.nights) == BASELINE_NIGHTS


def test_a_slow_drift_cannot_hide_in_the_baseline():
    assert "regressed" in outcomes(nights(*(10 + 0.5 * night for night in range(28))))


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("better", ["lower", "higher"])
def test_what_is_no_number_is_an_alarm_and_no_baseline(broken, better):
    assert outcomes(nights(broken, 10.0, broken, 10.0), better) == ["regressed", "baseline", "regressed", "within"]
    assert judge_nights([Measurement("a", 1.0, broken)], better)[0].regressed


def test_without_any_spread_rounding_is_no_alarm():
    assert outcomes(nights(0.0, 0.0, 1e-12, 1.0, error=0.0)) == ["baseline", "within", "within", "regressed"]


def test_a_verdict_is_plain_data():
    for verdict in judge_nights(nights(10.0, math.nan, 11.0), "lower"):
        data = verdict.as_dict()
        assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["baseline_nights"] == ["2026-01-01"]
    assert data["low"] < data["baseline"] == 10.0 < data["high"]


def series(draws, length, shift_at=None, shift=0.0):
    """Gaussian nights whose standard errors are estimates that scatter by 10 %."""
    for night in range(length):
        moved = shift if shift_at is not None and night >= shift_at else 0.0
        yield Measurement(str(night), float(draws.normal(moved)), float(np.exp(draws.normal(0, 0.1))))


def test_false_alarms_stay_below_the_stated_rate():
    draws, judged = np.random.default_rng(1), []
    for _ in range(1000):
        measurements = list(series(draws, 21))
        for better in ("lower", "higher"):
            judged += judge_nights(measurements, better)[1:]
    assert len(judged) == 40_000
    assert sum(verdict.regressed for verdict in judged) / len(judged) < FALSE_ALARM_RATE
    assert max(abs(verdict.z) for verdict in judged) > 3.5


@pytest.mark.parametrize(("shift", "least"), [(6.0, 0.7), (8.0, 0.95)])
def test_a_shift_is_found_in_the_first_night_that_has_it(shift, least):
    draws = np.random.default_rng(2)
    found = [judge_nights(list(series(draws, 11, 10, shift)), "lower")[-1].regressed for _ in range(300)]
    assert sum(found) / len(found) > least
