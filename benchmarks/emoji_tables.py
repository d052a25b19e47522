"""What the benchmarks of the emoji world have found, as Markdown tables for the docs.

python -m benchmarks.emoji_tables FOLDER [...]

Each folder is the output of benchmarks.emoji_teacher, emoji_adapter or emoji_composition.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.emoji_scores import PHOTOGRAPHS
from benchmarks.emoji_sets import HELD_OUT

Scores = Mapping[str, Mapping[str, Any]]
_UNKNOWN = "-"


def teacher_table(found: Mapping[str, Any]) -> list[str]:
    """A row per scale, after the judge's own accuracy and the real pictures of the same prompts."""
    heads = ["scale", "name top-1", "top-5", "style", "alignment", "FD", "FD, EfficientNet"]
    rows = [["judge on unseen pictures", *_teacher_cells({"all": found["judge"]})]] if "judge" in found else []
    rows += [["real pictures", *_teacher_cells(found["real"])]] if "real" in found else []
    rows += [[f"{row['scale']:g}", *_teacher_cells(row)] for row in found["scales"]]
    return table([*heads, "held-out: name top-1", "held-out: FD"], rows)


def _teacher_cells(row: Mapping[str, Scores]) -> list[str]:
    whole, held_out = row["all"], row.get(HELD_OUT, {})
    shares = [share(whole, name) for name in ("name_top1", "name_top5", "style_top1")]
    distances = [number(whole, "fd", 4, interval=True), number(whole, f"fd_{PHOTOGRAPHS}", 2)]
    return [
        *shares,
        number(whole, "clip_score", 2),
        *distances,
        share(held_out, "name_top1"),
        number(held_out, "fd", 4),
    ]


def adapter_table(found: Mapping[str, Any]) -> list[str]:
    """A row per method and scale."""
    heads = ["method", "scale", "passes", "FD", "name top-1", "style", "alignment", "paired error / no guidance's"]
    return table(heads, [[row["name"], f"{row['scale']:g}", f"{row['nfe']:g}", *_cells(row)] for row in found["rows"]])


def _cells(row: Mapping[str, Any]) -> list[str]:
    scores = row["all"]
    shown = [number(scores, "fd", 4, interval=True), share(scores, "name_top1"), share(scores, "style_top1")]
    return [*shown, number(scores, "clip_score", 2), number(row, "relative_error", 3, interval=True)]


def composition_table(found: Mapping[str, Any]) -> list[str]:
    """A row per composition: drift; then distance, right names and alignment of no guidance / CFG / adapter."""
    heads = ["pipeline", "images", "relative drift", "FD", "adapter / CFG", "name top-1", "alignment"]
    rows = []
    for name, numbers in found["compositions"].items():
        ways = [numbers["scores"][way]["all"] for way in ("no guidance", "CFG", "adapter")]
        shown = [_three(number(way, "fd", 3) for way in ways), f"{numbers['adapter_fd_over_cfg']:.2f}"]
        shown += [_three(share(way, "name_top1") for way in ways), _three(number(way, "clip_score", 1) for way in ways)]
        rows.append([name, str(numbers["images"]), number(numbers, "relative_error", 2, interval=True), *shown])
    return table(heads, rows)


def _three(cells: Iterable[str]) -> str:
    return " / ".join(cells)


def share(scores: Scores, name: str) -> str:
    """In percent."""
    return f"{100 * scores[name]['value']:.1f} %" if name in scores else _UNKNOWN


def number(scores: Scores, name: str, digits: int, interval: bool = False) -> str:
    """With its 95 % interval, where it is asked for and known."""
    if name not in scores or scores[name]["value"] is None:
        return _UNKNOWN
    found = scores[name]
    text = f"{found['value']:.{digits}f}"
    known = interval and found["low"] is not None
    return f"{text} ({found['low']:.{digits}f} to {found['high']:.{digits}f})" if known else text


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


TABLES = {"teacher.json": teacher_table, "adapter.json": adapter_table, "composition.json": composition_table}


def main(folders: Sequence[str]) -> None:
    for folder in map(Path, folders):
        for name, made in TABLES.items():
            if (folder / name).exists():
                found = json.loads((folder / name).read_text(encoding="utf-8"))
                print("\n".join([f"{folder / name}: {found['settings']}", "", *made(found), ""]))


if __name__ == "__main__":
    main(sys.argv[1:])
