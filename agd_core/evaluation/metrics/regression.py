"""When a metric that is measured every night left its confidence band.

The baseline is the inverse-variance pooled mean of the first nights that were no alarms themselves. Tonight's distance
from it is divided by the standard error of that difference, which is widened where the baseline nights differ from
each other by more than their standard errors say.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agd_core.evaluation.metrics.base import Better

Outcome = Literal["baseline", "within", "improved", "regressed"]
"""`baseline`: there was no earlier night to compare with. Only `regressed` is an alarm."""

THRESHOLD = 4.0
"""Standard errors of the difference beyond which tonight is out of the band."""
FALSE_ALARM_RATE = 1e-4
"""Stated bound per metric and night. A Gaussian lies beyond the threshold with 3.2e-5; the rest is room for standard
errors that are estimates themselves."""
BASELINE_NIGHTS = 5

_FLOOR = 1e-9
"""Smallest standard error that is believed, so that a measured zero spread does not turn rounding into an alarm."""


@dataclass(frozen=True)
class Measurement:
    """One metric in one night."""

    night: str
    """Begins with the ISO date."""
    value: float
    standard_error: float

    @property
    def sound(self) -> bool:
        """Whether it is a number at all; a broken adapter may give none."""
        return math.isfinite(self.value) and math.isfinite(self.standard_error)


@dataclass(frozen=True)
class Band:
    """Where tonight's value was expected."""

    centre: float
    """Pooled mean of the baseline nights."""
    standard_error: float
    """Of tonight's difference from the centre."""
    nights: tuple[str, ...]
    """The baseline nights."""

    @property
    def low(self) -> float:
        """Lower end, in the metric's own unit."""
        return self.centre - THRESHOLD * self.standard_error

    @property
    def high(self) -> float:
        """Upper end."""
        return self.centre + THRESHOLD * self.standard_error


@dataclass(frozen=True)
class NightVerdict:
    """What the rule says about one measurement."""

    measured: Measurement
    outcome: Outcome
    z: float | None
    """Standard errors of the difference from the band's centre; positive is worse. None without a band."""
    band: Band | None
    """None where there is no earlier night to compare with."""

    @property
    def regressed(self) -> bool:
        """Whether it is an alarm."""
        return self.outcome == "regressed"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, which has no NaN and no infinity: they become None."""
        band = self.band
        numbers = {
            "value": self.measured.value,
            "standard_error": self.measured.standard_error,
            "z": self.z,
            "low": band.low if band else None,
            "high": band.high if band else None,
            "baseline": band.centre if band else None,
        }
        finite = {
            key: None if number is None or not math.isfinite(number) else number for key, number in numbers.items()
        }
        return {"outcome": self.outcome, **finite, "baseline_nights": list(band.nights) if band else []}


def judge_nights(measurements: Sequence[Measurement], better: Better) -> list[NightVerdict]:
    """Judge every night by the nights before it.

    Args:
        measurements: one metric of one adapter name under one protocol, by night.
        better: its good direction.
    """
    baseline: list[Measurement] = []
    verdicts = []
    for tonight in measurements:
        verdicts.append(judge_night(baseline, tonight, better))
        if not verdicts[-1].regressed and len(baseline) < BASELINE_NIGHTS:
            baseline.append(tonight)
    return verdicts


def judge_night(baseline: Sequence[Measurement], tonight: Measurement, better: Better) -> NightVerdict:
    """Compare tonight with the baseline nights; a value that is no number is an alarm, also in the first night."""
    if not baseline:
        return NightVerdict(tonight, "baseline" if tonight.sound else "regressed", None, None)
    band = _band(baseline, tonight.standard_error if tonight.sound else 0.0)
    if not tonight.sound:
        return NightVerdict(tonight, "regressed", None, band)
    worse = tonight.value - band.centre if better == "lower" else band.centre - tonight.value
    z = worse / band.standard_error
    outcome: Outcome = "regressed" if z > THRESHOLD else "improved" if z < -THRESHOLD else "within"
    return NightVerdict(tonight, outcome, z, band)


def _band(baseline: Sequence[Measurement], standard_error: float) -> Band:
    """The band for a night that is measured with this standard error."""
    values = [measurement.value for measurement in baseline]
    variances = [measurement.standard_error**2 + _FLOOR**2 for measurement in baseline]
    precision = sum(1 / variance for variance in variances)
    centre = sum(value / variance for value, variance in zip(values, variances, strict=True)) / precision
    unclaimed = _unclaimed_variance(values, variances) * (1 + 1 / len(baseline))
    error = math.sqrt(standard_error**2 + 1 / precision + unclaimed)
    return Band(centre, error, tuple(measurement.night for measurement in baseline))


def _unclaimed_variance(values: Sequence[float], variances: Sequence[float]) -> float:
    """Variance between nights beyond what their standard errors claim; every single night has it."""
    if len(values) < 2:
        return 0.0
    return max(0.0, statistics.variance(values) - statistics.fmean(variances))
