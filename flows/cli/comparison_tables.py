"""`agd compare` on a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from agd_core.evaluation.comparing.row_pairs import point_in_words
from agd_core.evaluation.metrics import quantities
from agd_core.evaluation.metrics.standard_errors import NORMAL_95
from agd_core.evaluation.rows import WARNED
from flows.comparing import Printed, method_name
from flows.printing import number, print_line, print_table

_CAPTION = "± is the 95 % interval of the difference from A"
_ORDER = {name: place for place, name in enumerate(quantities())}


def print_comparisons(found: Mapping[str, Any]) -> None:
    """Print what `flows.comparing.compared` answers: a table per baseline and point, then what must be known."""
    for label, place in found["sources"].items():
        print_line(f"{label}: {place}")
    groups: dict[tuple[str, str], list[Printed]] = {}
    for item in found["comparisons"]:
        groups.setdefault((method_name(item["baseline"]), _point(item["baseline"])), []).append(item)
    for (baseline, point), items in groups.items():
        _print_table(baseline, point, items)
    for line in _lines(found):
        print_line(line)


def _print_table(baseline: str, point: str, items: Sequence[Printed]) -> None:
    """The baseline's values, and for every other one its values with difference and verdict."""
    others = [method_name(item["other"]) + _elsewhere(item) for item in items]
    lines = []
    metrics = dict.fromkeys(name for item in items for name in item["metrics"])
    for metric in sorted(metrics, key=lambda name: _ORDER.get(name, len(_ORDER))):
        judged = [item["metrics"].get(metric) for item in items]
        shown = next(one["baseline"] for one in judged if one)
        lines.append([metric, _score(shown), *(_judged(one) for one in judged)])
    rows = [items[0]["baseline"], *(item["other"] for item in items)]
    lines.append(["NFE", *(f"{row['nfe']:g}" for row in rows)])
    lines.append(["adapter parameters", *(f"{row['adapter_parameters']:,}" for row in rows)])
    print_table(["metric", baseline, *others], lines, title=point, caption=_CAPTION, lines=True)


def _elsewhere(item: Printed) -> str:
    point = _point(item["other"])
    return "" if point == _point(item["baseline"]) else f"\n{point}"


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    ends = "" if score["low"] is None or score["high"] is None else f" ({score['low']:.4g} to {score['high']:.4g})"
    return number(score["value"]) + ends + (WARNED if score["warnings"] else "")


def _judged(judged: Mapping[str, Any] | None) -> str:
    if judged is None:
        return "-"
    difference = "" if judged["difference"] is None else f"{judged['difference']:+.3g}"
    if judged["standard_error"] is not None:
        difference += f" ± {NORMAL_95 * judged['standard_error']:.2g}"
    return f"{_score(judged['other'])}\n{difference}{': ' if difference else ''}{judged['verdict']}"


def _lines(found: Mapping[str, Any]) -> list[str]:
    """What stands below the tables."""
    items = found["comparisons"]
    scores = [one[side] for i in items for one in i["metrics"].values() for side in ("baseline", "other") if one[side]]
    warnings = dict.fromkeys(warning for score in scores for warning in score["warnings"])
    reasons = dict.fromkeys(reason for item in items for reason in item["reasons"])
    lines = [f"{WARNED.strip()} {warning}" for warning in warnings]
    lines += [f"not comparable: {reason}" for reason in reasons]
    lines += [f"compared nevertheless, as asked (--allow): {text}" for text in found["allowed"]]
    lines += found["lacking"]
    lines += [f"note: {note}" for note in found["notes"]]
    return lines + [_overall_line(pair) for pair in found["overall"]]


def _overall_line(pair: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{count} {verdict}" for verdict, count in pair["counts"].items())
    return f"{pair['other']} against {pair['baseline']}: {pair['verdict'].upper()} ({counts})"


def _point(row: Mapping[str, Any]) -> str:
    return point_in_words((row["teacher_scale"], row["scheduler"], row["steps"]))
