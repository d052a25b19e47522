"""What the history says about an adapter: a verdict per metric and night, and the trend plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from agd_core.basics.atomic import write_bytes
from agd_core.basics.safe_files import confined
from agd_core.evaluation.metrics import Better, Measurement, NightVerdict, judge_nights, quantities
from agd_core.report.plots import trend_plot
from storage.history import HISTORY, History, MetricRecord

TRENDS = "trends"
"""Name of the folder that holds an output folder's trend plots."""
OF_TEACHER = "teacher_"
"""Begins the names by which the history knows the guided teacher's numbers."""


def prefix_of(rule: str) -> str:
    """Begins the names by which the history knows the numbers of a rule without training.

    Args:
        rule: its label, e.g. "CFG gate 0.5".
    """
    return f"{rule.lower().replace(',', '').replace(' ', '-')}_"


def open_history(output: Path) -> History:
    """The history of an output folder.

    Raises:
        InputError: it is a link that leads out of the folder.
    """
    return History(confined(output, HISTORY))


def judge_history(records: Sequence[MetricRecord]) -> dict[str, list[NightVerdict]]:
    """Verdicts by metric, each by night; a night is compared with earlier ones of its own protocol.

    Args:
        records: of one adapter, by night.
    """
    verdicts: dict[str, list[NightVerdict]] = {}
    for metric, protocol in dict.fromkeys((record.metric, record.protocol_digest) for record in records):
        chosen = [r for r in records if (r.metric, r.protocol_digest) == (metric, protocol)]
        measurements = [Measurement(r.night, r.value, r.standard_error) for r in chosen]
        verdicts.setdefault(metric, []).extend(judge_nights(measurements, cast(Better, chosen[0].better)))
    return {metric: sorted(judged, key=lambda verdict: verdict.measured.night) for metric, judged in verdicts.items()}


def verdicts_of_night(records: Sequence[MetricRecord], night: str | None) -> dict[str, NightVerdict]:
    """Verdicts of one night by metric; arguments as in `judge_history`."""
    judged = [(metric, verdict) for metric, verdicts in judge_history(records).items() for verdict in verdicts]
    return {metric: verdict for metric, verdict in judged if verdict.measured.night == night}


def write_trend(name: str, records: Sequence[MetricRecord], output: Path) -> Path:
    """Draw every metric of one adapter over its nights; `records` as in `judge_history`."""
    path = confined(output, f"{TRENDS}/{name}.png")
    labelled = {_in_words(metric): verdicts for metric, verdicts in judge_history(records).items()}
    write_bytes(trend_plot(labelled, name), path)
    return path


def _in_words(metric: str) -> str:
    """By the name that the history knows it by; one of another version has that name alone."""
    found = [name for name in quantities() if metric == name or metric.endswith(f"_{name}")]
    if not found:
        return metric
    name = max(found, key=len)
    whose = metric.removesuffix(name).rstrip("_")
    return f"{quantities()[name].in_words}, {whose}" if whose else quantities()[name].in_words
