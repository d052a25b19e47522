"""What a shoot-out has found, as Markdown tables for the docs.

    python -m benchmarks.shootout_tables OUTPUT/shootout.json

What each method takes; its paired error as a share of no guidance's, and the Frechet distance, at every guidance scale;
the other scores at the headline's scale with the verdict against the teacher at 95 %. All numbers of trained methods
are means over their seeds with 95 % intervals.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agd_core.basics.safe_files import read_json
from agd_core.evaluation.metrics import quantities
from agd_core.evaluation.metrics.distance import FD
from agd_core.evaluation.metrics.paired import PAIRED_MSE
from agd_core.evaluation.relative_error import RELATIVE_ERROR
from agd_core.evaluation.rows import Row

Found = Mapping[str, Any]
"""The content of a shootout.json."""
_SCORES = ("fd", "accuracy", "clip_score", "name_top1", "chroma_shift", "contrast_shift")
_VERDICTS = ("better", "same", "worse")
_MEGABYTE, _UNKNOWN = 1e6, "-"
_TOOK: Mapping[str, Callable[[Found, Row], str]] = {
    "method": lambda contestant, row: row.name,
    "training steps": lambda contestant, row: _text(contestant["training"], "steps", "{:,.0f}"),
    "a step, ms": lambda contestant, row: _text(contestant["training"], "seconds_per_step", "{:.1f}", 1e3),
    "training, s": lambda contestant, row: _plain(row.training_seconds, "{:.0f}"),
    "training memory, MB": lambda contestant, row: _text(contestant["training"], "peak_memory_megabytes", "{:.0f}"),
    "parameters": lambda contestant, row: f"{row.adapter_parameters:,}" if row.adapter_parameters else _UNKNOWN,
    "file, MB": lambda contestant, row: _plain(row.adapter_bytes and row.adapter_bytes / _MEGABYTE, "{:.2f}"),
    "NFE": lambda contestant, row: f"{row.nfe:g}",
    "GFLOP per image": lambda contestant, row: _text(contestant["sampling"], "gigaflops_per_step", "{:.3g}", row.steps),
    "one image, ms": lambda contestant, row: _text(
        contestant["sampling"], "milliseconds_per_step_batch_1", "{:.0f}", row.steps
    ),
    "images/s, saturated": lambda contestant, row: _text(
        contestant["sampling"], "evaluated_images_per_second", "{:.1f}", 1 / row.steps
    ),
    "sampling memory, MB": lambda contestant, row: _text(contestant["sampling"], "peak_memory_megabytes", "{:.1f}"),
}


def took_table(found: Found) -> list[str]:
    """A line per way to sample: training, size, cost of an image."""
    lines = [
        [cell(contestant, row) for cell in _TOOK.values()]
        for contestant, row in zip(found["contestants"], _rows(found), strict=True)
    ]
    return _table(list(_TOOK), lines)


def error_table(found: Found) -> list[str]:
    """A line per way to sample, a column per scale: the share of no guidance's paired error, at scale 1 the MSE."""
    return _over_scale(found, {RELATIVE_ERROR: "{:.3f}", PAIRED_MSE.name: "{:.4f}"})


def distance_table(found: Found) -> list[str]:
    """The same of the Frechet distance, with the verdict against the teacher."""
    return _over_scale(found, {FD.name: FD.format})


def score_table(found: Found) -> list[str]:
    """A line per way to sample at the headline's scale, with the verdict against the teacher."""
    known = [quantities()[name] for name in _SCORES if any(name in row["scores"] for row in found["rows"])]
    lines = [[row["name"], *(_cell(row, it.name, it.format) for it in known)] for row in found["rows"]]
    return _table([f"method, scale {found['rows'][0]['teacher_scale']:g}", *(it.heading for it in known)], lines)


def _over_scale(found: Found, patterns: Mapping[str, str]) -> list[str]:
    """Of several scores the first that somebody has at a scale; scales that were not collected are marked."""
    low, high = found["collected"]
    by_scale: dict[float, list[Any]] = {}
    for row in found["all_rows"]:
        by_scale.setdefault(row["teacher_scale"], []).append(row)
    columns: dict[str, list[str]] = {}
    for scale, rows in sorted(by_scale.items()):
        names = [name for name in patterns if any(name in row["scores"] for row in rows)]
        if names:
            head = f"scale {scale:g}{'' if low <= scale <= high else ' (not collected)'}"
            columns[head] = [_cell(row, names[0], patterns[names[0]]) for row in rows]
    lines = zip([row["name"] for row in found["rows"]], *columns.values(), strict=True)
    return _table(["method", *columns], [list(line) for line in lines]) if columns else []


def _rows(found: Found) -> list[Row]:
    return [Row.model_validate(row) for row in found["rows"]]


def _text(costs: Found | None, name: str, pattern: str, factor: float = 1.0) -> str:
    number = costs and costs.get(name)
    return _plain(None if number is None else number * factor, pattern)


def _plain(number: float | None, pattern: str) -> str:
    return _UNKNOWN if number is None else pattern.format(number)


def _cell(row: Found, name: str, pattern: str) -> str:
    """A score of a row with its interval and its verdict, where it has them."""
    score = row["scores"].get(name)
    if score is None or score["value"] is None:
        return _UNKNOWN
    ends = [pattern.format(score[end]) for end in ("low", "high") if score[end] is not None]
    verdict = row["verdicts"].get(name)
    said = f", {verdict}" if verdict in _VERDICTS else ""
    return pattern.format(score["value"]) + (f" ({' to '.join(ends)})" if ends else "") + said


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *lines)]


def markdown(found: Found) -> Iterator[str]:
    """Everything, with how it was measured."""
    yield from (f"`{found['command']}`", "")
    for table in (took_table, error_table, distance_table, score_table):
        if lines := table(found):
            yield from (*lines, "")
    yield from (f"- {name}: {text}" for name, text in found["protocol"].items())


def main(paths: Sequence[str]) -> None:
    """Print the tables of every file."""
    for path in map(Path, paths):
        print("\n".join(markdown(read_json(path))))


if __name__ == "__main__":
    main(sys.argv[1:])
