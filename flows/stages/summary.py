"""The verdict of a report in words: what the best adapter costs, and how it measures up to its teacher."""

import math
from collections.abc import Mapping, Sequence

from agd_core.evaluation.comparing.judging import Verdict, judge
from agd_core.evaluation.metrics import Quantity
from agd_core.evaluation.metrics.paired import PAIRED_MSE
from agd_core.evaluation.rows import Row
from agd_core.report.columns import cell, measured

_WORDS: Mapping[Verdict, str] = {
    "better": "better at 95 %",
    "same": "the same at 95 %",
    "worse": "worse at 95 %",
    "unknown (no interval)": "no interval, so no verdict",
    "unknown (no number)": "no number, so no verdict",
}


def summary(rows: Sequence[Row]) -> str:
    """Plain sentences: the cost, then every main metric against the teacher with 95 % intervals and a verdict.

    Args:
        rows: of one point: the teacher, an adapter or more, and no guidance if it was sampled.
    """
    guided = next(row for row in rows if row.is_teacher)
    best = min((row for row in rows if row.adapter_parameters), key=_paired_error)
    unguided = next((row for row in rows if row.method == "none"), None)
    found = [item for item in measured((guided, best)) if item.headline and not item.paired]
    said = [_cost(guided, best, rows), *(_against(item, guided, best, unguided) for item in found)]
    return " ".join([*said, *_without_training(rows, best)])


def _paired_error(row: Row) -> float:
    error = row.value("paired_mse")
    return math.inf if error is None else error


def _cost(guided: Row, best: Row, rows: Sequence[Row]) -> str:
    several = sum(1 for row in rows if row.adapter_parameters) > 1 and math.isfinite(_paired_error(best))
    closest = f", the adapter closest to {guided.name}'s images (smallest paired MSE)," if several else ""
    return (
        f"At guidance scale {guided.guidance_scale:g} {_in_full(guided)} takes {guided.nfe:g} "
        f"network evaluations per image; {best.name}{closest} takes {best.nfe:g}, "
        f"with {best.adapter_percent:.1f} % extra parameters."
    )


def _in_full(guided: Row) -> str:
    return "classifier-free guidance (CFG)" if guided.name == "CFG" else f"guidance by {guided.name}"


def _against(metric: Quantity, guided: Row, best: Row, unguided: Row | None) -> str:
    """One sentence on one number, e.g. "CLIP score: 31.0 (...) with the adapter, 31.2 (...) with CFG: ..."."""
    name = metric.in_words[0].upper() + metric.in_words[1:]
    text = (
        f"{name}: {_number(metric, best)} with the adapter, {_number(metric, guided)} with {guided.name}: "
        f"{_verdict(metric, guided, best)}"
    )
    shown = [guided, best]
    if unguided is not None:
        shown.append(unguided)
        text += f"; without guidance {_number(metric, unguided)}: {_verdict(metric, guided, unguided)}"
    warned = any(cell(row, metric).warnings for row in shown)
    return f"{text}; a warning belongs to these numbers, see below." if warned else f"{text}."


def _without_training(rows: Sequence[Row], best: Row) -> list[str]:
    """One sentence on the rules that spare passes, against the adapter."""
    spared = [row for row in rows if row.training_free is not None]
    if not spared or not math.isfinite(_paired_error(best)):
        return []
    each = (
        f"{row.name} takes {row.nfe:g} evaluations and has {_number(PAIRED_MSE, row)}, "
        f"{_verdict(PAIRED_MSE, best, row)}"
        for row in spared
    )
    adapters = f"{PAIRED_MSE.heading} of {_number(PAIRED_MSE, best)}"
    return [f"Without training, against the adapter's {adapters}: {'; '.join(each)}."]


def _verdict(metric: Quantity, guided: Row, other: Row) -> str:
    scores = guided.scores.get(metric.name), other.scores.get(metric.name)
    found = judge(metric.name, scores, (guided.protocol, other.protocol)).verdict
    return _WORDS.get(found, found)


def _number(metric: Quantity, row: Row) -> str:
    found = cell(row, metric)
    return f"{found.text} ({found.below})" if found.below else found.text
