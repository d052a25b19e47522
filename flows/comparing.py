"""What lies at two or more places, compared: which rows belong together and what their numbers say."""

import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agd_core.basics.errors import InputError
from agd_core.evaluation.comparing.comparison import EDITED, Choice, compare, require_comparable
from agd_core.evaluation.comparing.judging import overall
from agd_core.evaluation.comparing.row_pairs import Source
from flows.results import read_results

_LABELS = string.ascii_uppercase

Printed = Mapping[str, Any]
"""A comparison as plain data, see `Comparison.as_dict`."""


def compared(places: Sequence[Path], choice: Choice) -> dict[str, Any]:
    """Compare what lies at two or more places, as plain data.

    Raises:
        InputError: a place holds no results, or nothing is comparable.
    """
    if not 2 <= len(places) <= len(_LABELS):
        raise InputError(f"compare takes two results or more, at most {len(_LABELS)}; got {len(places)}")
    results = [read_results(place, EDITED in choice.allowed) for place in places]
    sources = [
        Source(*read) for read in zip(_LABELS, map(str, places), (found.rows for found in results), strict=False)
    ]
    comparisons, lacking = compare(sources, choice)
    require_comparable(comparisons)
    printed = [comparison.as_dict() for comparison in comparisons]
    return {
        "sources": {source.label: source.place for source in sources},
        "overall": _overall(printed),
        "comparisons": printed,
        "lacking": lacking,
        "allowed": list(dict.fromkeys(text for item in printed for text in item["allowed"])),
        "notes": [*_notes(printed), *dict.fromkeys(found.doubt for found in results if found.doubt)],
    }


def _overall(comparisons: Sequence[Printed]) -> list[dict[str, Any]]:
    """A verdict per pair of methods over all points, with how many metrics said what."""
    verdicts: dict[tuple[str, str], list[Any]] = {}
    for item in comparisons:
        found = verdicts.setdefault((method_name(item["baseline"]), method_name(item["other"])), [])
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
    notes += dict.fromkeys(difference for item in comparisons for difference in item["rules"])
    if any(item["same_noise"] for item in comparisons):
        notes.append(
            "same noise on both sides: standard errors are added as if they were independent, which overstates the "
            "error of the difference as a rule, so small differences may read the same"
        )
    return notes


def method_name(row: Mapping[str, Any]) -> str:
    """A source's label and the row's name, e.g. "A CFG"."""
    return f"{row['source']} {row['name']}"
