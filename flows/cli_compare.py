"""`agd compare`: adapters or reports side by side, with intervals and a verdict."""

import json
import string
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from agd_core.comparing.comparison import Choice, compare, require_comparable
from agd_core.comparing.judging import overall
from agd_core.comparing.row_pairs import Source, point_in_words
from agd_core.errors import InputError
from agd_core.metrics.standard_errors import NORMAL_95
from agd_core.protocol import FIELDS
from agd_core.report.columns import COLUMNS
from agd_core.report.rows import WARNED
from flows.results import read_rows
from flows.workplace import Workplace

Guarded = Callable[[Callable[[Workplace], dict[str, Any]], Path, str], dict[str, Any]]
"""Runs work with progress on the terminal, given a folder to work in and a device."""

Places = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULTS",
        help="Two or more output folders, reports, published adapters or metrics.json files; A, the first, is the "
        "baseline.",
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", metavar="FIELD", help=f"Compare although this part of the protocol differs: {', '.join(FIELDS)}."
    ),
]
Metrics = Annotated[list[str] | None, typer.Option("--metric", metavar="NAME", help="Only this metric, e.g. fd.")]
MethodNames = Annotated[
    list[str] | None,
    typer.Option("--method", metavar="NAME", help="Only rows of this name, e.g. CFG; else all adapters."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]

_PIPE_COLUMNS = 140
_CAPTION = "± is the 95 % interval of the difference from A"
_ORDER = {column.key: place for place, column in enumerate(COLUMNS)}
_LABELS = string.ascii_uppercase

Printed = Mapping[str, Any]
"""A comparison as plain data, see `Comparison.as_dict`."""


def add_commands(app: typer.Typer, guarded: Guarded) -> None:
    """Add `compare`; it finds `guarded` in its context."""
    app.command("compare", context_settings={"obj": guarded})(compare_results)


def compare_results(
    context: typer.Context,
    places: Places,
    allow: Allow = None,
    metric: Metrics = None,
    method: MethodNames = None,
    as_json: Json = False,
) -> None:
    """Compare adapters or reports at 95 %: better, same or worse than A, or not comparable and why."""
    choice = Choice(allow or (), metric or (), method or ())
    found = context.obj(lambda _: compared(places, choice), Path(tempfile.gettempdir()), "cpu")
    if as_json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        _show(found)


def compared(places: Sequence[Path], choice: Choice) -> dict[str, Any]:
    """Compare what lies at two or more places, as plain data.

    Raises:
        InputError: a place holds no results, or nothing is comparable.
    """
    if not 2 <= len(places) <= len(_LABELS):
        raise InputError(f"compare takes two results or more, at most {len(_LABELS)}; got {len(places)}")
    sources = [Source(label, str(place), read_rows(place)) for label, place in zip(_LABELS, places, strict=False)]
    comparisons, lacking = compare(sources, choice)
    require_comparable(comparisons)
    printed = [comparison.as_dict() for comparison in comparisons]
    return {
        "sources": {source.label: source.place for source in sources},
        "overall": _overall(printed),
        "comparisons": printed,
        "lacking": lacking,
        "allowed": list(dict.fromkeys(text for item in printed for text in item["allowed"])),
        "notes": _notes(printed),
    }


def _overall(comparisons: Sequence[Printed]) -> list[dict[str, Any]]:
    """A verdict per pair of methods over all points, with how many metrics said what."""
    verdicts: dict[tuple[str, str], list[Any]] = {}
    for item in comparisons:
        found = verdicts.setdefault((_name(item["baseline"]), _name(item["other"])), [])
        found += [metric["verdict"] for metric in item["metrics"].values()]
    return [
        {
            "baseline": baseline,
            "other": other,
            "verdict": overall(found),
            "counts": {verdict: found.count(verdict) for verdict in dict.fromkeys(found)},
        }
        for (baseline, other), found in verdicts.items()
    ]


def _notes(comparisons: Sequence[Printed]) -> list[str]:
    """What a reader must know to read the verdicts."""
    tested = [m for item in comparisons for m in item["metrics"].values() if m["standard_error"] is not None]
    notes = [
        f"{len(tested)} differences were tested, each at 95 %: where nothing differs, about one in twenty still "
        "reads better or worse"
    ]
    if any(item["same_noise"] for item in comparisons):
        notes.append(
            "same noise on both sides: standard errors are added as if they were independent, which overstates the "
            "error of the difference as a rule, so small differences may read the same"
        )
    return notes


def _show(found: Mapping[str, Any]) -> None:
    console = Console(markup=False)
    console = console if console.is_terminal else Console(markup=False, width=_PIPE_COLUMNS)
    for label, place in found["sources"].items():
        print(f"{label}: {place}")
    groups: dict[tuple[str, str], list[Printed]] = {}
    for item in found["comparisons"]:
        groups.setdefault((_name(item["baseline"]), _point(item["baseline"])), []).append(item)
    for (baseline, point), items in groups.items():
        console.print(_table(baseline, point, items))
    for line in _lines(found):
        print(line)


def _table(baseline: str, point: str, items: Sequence[Printed]) -> Table:
    """The baseline's values, and for every other one its values with difference and verdict."""
    others = [_name(item["other"]) + _elsewhere(item) for item in items]
    table = Table("metric", baseline, *others, title=point, caption=_CAPTION, show_lines=True)
    metrics = dict.fromkeys(name for item in items for name in item["metrics"])
    for metric in sorted(metrics, key=lambda name: _ORDER.get(name, len(_ORDER))):
        judged = [item["metrics"].get(metric) for item in items]
        shown = next(one["baseline"] for one in judged if one)
        table.add_row(metric, _score(shown), *(_judged(one) for one in judged))
    rows = [items[0]["baseline"], *(item["other"] for item in items)]
    table.add_row("NFE", *(f"{row['nfe']:g}" for row in rows))
    table.add_row("adapter parameters", *(f"{row['adapter_parameters']:,}" for row in rows))
    return table


def _elsewhere(item: Printed) -> str:
    point = _point(item["other"])
    return "" if point == _point(item["baseline"]) else f"\n{point}"


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return "-"
    ends = "" if score["low"] is None or score["high"] is None else f" ({score['low']:.4g} to {score['high']:.4g})"
    return _number(score["value"]) + ends + (WARNED if score["warnings"] else "")


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


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['source']} {row['name']}"


def _point(row: Mapping[str, Any]) -> str:
    return point_in_words((row["teacher_scale"], row["scheduler"], row["steps"]))


def _number(value: float | None) -> str:
    return "no number" if value is None else f"{value:.4g}"
