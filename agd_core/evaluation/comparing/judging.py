"""Two measured scores against each other: better, same or worse at 95 %, or why that cannot be said."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from agd_core.evaluation.comparing.shaping import shaping
from agd_core.evaluation.metrics import Score
from agd_core.evaluation.metrics.standard_errors import NORMAL_95
from agd_core.evaluation.protocol import Difference, differences

Verdict = Literal["better", "same", "worse", "mixed", "not comparable", "unknown (no interval)", "unknown (no number)"]
"""Of the other one, against the baseline. Only an overall verdict is `mixed`."""

_ROUNDING = 1e-9
"""Relative difference that is rounding: no verdict rests on it, however small the standard errors are."""


@dataclass(frozen=True)
class Judged:
    """One metric of two rows."""

    metric: str
    baseline: Score | None
    """None where it was not measured."""
    other: Score | None
    verdict: Verdict
    difference: float | None = None
    """Other minus baseline, in the metric's own unit."""
    standard_error: float | None = None
    """Of the difference, if the two errors are independent."""
    refused: tuple[Difference, ...] = ()
    """Where the protocols differ in what shapes this metric."""
    allowed: tuple[Difference, ...] = ()
    """The same, overruled by a person."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the difference."""
        if self.difference is None or self.standard_error is None:
            return None
        margin = NORMAL_95 * self.standard_error
        return self.difference - margin, self.difference + margin

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        low, high = self.interval or (None, None)
        numbers = {"difference": self.difference, "standard_error": self.standard_error, "low": low, "high": high}
        both = {"baseline": self.baseline, "other": self.other}
        scores = {side: score and score.model_dump(mode="json") for side, score in both.items()}
        return {"verdict": self.verdict, **scores, **numbers}


def judge(
    metric: str,
    scores: tuple[Score | None, Score | None],
    protocols: tuple[Mapping[str, Any], Mapping[str, Any]],
    allowed: Collection[str] = (),
) -> Judged:
    """Judge one metric.

    Args:
        metric: its name.
        scores: the baseline's and the other's.
        protocols: how they were made, see `agd_core.evaluation.protocol.Protocol.as_dict`.
        allowed: fields of the protocol that may differ.
    """
    every = shaping(differences(*protocols), metric)
    refused = shaping(differences(*protocols, allowed), metric)
    overruled = tuple(difference for difference in every if difference not in refused)
    baseline, other = scores
    judged = Judged(metric, baseline, other, "not comparable", refused=tuple(refused), allowed=overruled)
    if baseline is None or other is None or refused or baseline.better != other.better:
        return judged
    return _weigh(judged, baseline, other)


def overall(verdicts: Collection[Verdict]) -> Verdict:
    """One verdict of several.

    No number anywhere: unknown. Otherwise better and worse together are mixed, and either of them outweighs "same";
    what is unknown or not comparable counts only where there is nothing else.
    """
    if "unknown (no number)" in verdicts:
        return "unknown (no number)"
    if "better" in verdicts and "worse" in verdicts:
        return "mixed"
    order: Sequence[Verdict] = ("better", "worse", "same", "unknown (no interval)")
    return next((verdict for verdict in order if verdict in verdicts), "not comparable")


def _weigh(judged: Judged, baseline: Score, other: Score) -> Judged:
    """The verdict on two scores of like protocols."""
    if baseline.value is None or other.value is None:
        return replace(judged, verdict="unknown (no number)")
    difference = other.value - baseline.value
    if baseline.standard_error is None or other.standard_error is None:
        return replace(judged, verdict="unknown (no interval)", difference=difference)
    error = math.hypot(baseline.standard_error, other.standard_error)
    rounding = _ROUNDING * max(abs(baseline.value), abs(other.value))
    improvement = -difference if baseline.better == "lower" else difference
    verdict: Verdict = "better" if improvement > 0 else "worse"
    if abs(difference) <= max(NORMAL_95 * error, rounding):
        verdict = "same"
    return replace(judged, verdict=verdict, difference=difference, standard_error=error)
