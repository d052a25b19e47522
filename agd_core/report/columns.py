"""The tables of all that was measured: one per sampler, grouped by guidance scale as the AGD paper prints them."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agd_core.report.rows import NO_NUMBER, Row, is_number

ARROWS = {"lower": "↓", "higher": "↑"}
"""Behind a heading: the good direction."""
_ORDER = {"cfg": 0, "none": 2}
_ADAPTERS = 1
_DISTANCE = "FD"
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Column:
    """How one metric is shown."""

    key: str
    """Its name among a row's scores."""
    heading: str
    pattern: str
    """Format of the number, its unit included."""
    meaning: str
    """One line for the reader."""


COLUMNS = (
    Column("fd", "FD", "{:.2f}", "Fréchet distance to the real images in the extractor's features."),
    Column("fd_infinity", "FD∞", "{:.2f}", "The Fréchet distance extrapolated to endlessly many images."),
    Column(
        "kid", "KID", "{:.5f}", "Kernel distance to the real images (squared MMD, cubic kernel), without size bias."
    ),
    Column("inception_score", "IS", "{:.2f}", "Inception Score: how surely and how variously images are recognised."),
    Column("precision", "precision", "{:.3f}", "Share of samples that lie among the real images."),
    Column("recall", "recall", "{:.3f}", "Share of real images that lie among the samples."),
    Column("accuracy", "accuracy", "{:.1%}", "Share of images that the judge gives the class they were sampled for."),
    Column("clip_score", "CLIP score", "{:.2f}", "Agreement of image and prompt in CLIP's features."),
    Column("paired_mse", "paired MSE", "{:.4f}", "Squared distance of final latents to CFG's from the same noise."),
    Column(
        "psnr",
        "PSNR, dB",
        "{:.2f}",
        "Likeness to CFG's image from the same noise, pixel by pixel; 58.9 dB is the cap: identical images.",
    ),
    Column("ssim", "SSIM", "{:.3f}", "Structural likeness to CFG's image from the same noise; 1 is equal."),
    Column("feature_cosine", "cosine", "{:.4f}", "Cosine to CFG's image from the same noise, in features; 1 is equal."),
    Column("lpips", "LPIPS", "{:.4f}", "Perceptual distance to CFG's image from the same noise."),
)


@dataclass(frozen=True)
class Cell:
    """One number of a table."""

    text: str
    below: str = ""
    """What stands below it in small: its 95 % interval."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """Every method at one guidance scale: CFG, the adapters, no guidance."""

    title: str
    lines: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True)
class Table:
    """Every method at every guidance scale, of one scheduler and step count."""

    title: str
    headings: tuple[str, ...]
    groups: tuple[Group, ...]


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table per scheduler and step count, in the order of the rows; a column only for what was measured."""
    samplers = _grouped(rows, lambda row: (row["scheduler"], row["steps"]))
    return [_table(f"{scheduler}, {steps} steps", group) for (scheduler, steps), group in samplers.items()]


def measured(rows: Sequence[Row]) -> list[Column]:
    """The metrics that some row has a score of, the unknown ones last."""
    found = dict.fromkeys(name for row in rows for name in row["scores"])
    known = [column for column in COLUMNS if column.key in found]
    new = found.keys() - {column.key for column in known}
    return known + [Column(name, name.replace("_", " "), "{:.4g}", "") for name in found if name in new]


def heading(column: Column, rows: Sequence[Row]) -> str:
    """A metric's name with the good direction."""
    directions = {row["scores"][column.key]["better"] for row in rows if column.key in row["scores"]}
    return f"{_name(column, rows)} {'/'.join(ARROWS[direction] for direction in sorted(directions))}"


def _name(column: Column, rows: Sequence[Row]) -> str:
    """The metric's name; the Frechet distance has the one that its extractor gives it."""
    names = {row["protocol"].get("distance", _DISTANCE) for row in rows}
    return column.heading.replace(_DISTANCE, names.pop()) if len(names) == 1 else column.heading


def explained(rows: Sequence[Row]) -> dict[str, str]:
    """What every measured metric means, by its heading with the good direction."""
    return {heading(column, rows): column.meaning for column in measured(rows) if column.meaning}


def warned(rows: Sequence[Row]) -> dict[str, str]:
    """Every warning, once, with the metrics that it belongs to."""
    metrics: dict[str, list[str]] = {}
    for column in measured(rows):
        for row in rows:
            for warning in row["scores"].get(column.key, {}).get("warnings", ()):
                metrics.setdefault(warning, []).append(column.heading)
    return {warning: ", ".join(dict.fromkeys(names)) for warning, names in metrics.items()}


def cell(row: Row, column: Column) -> Cell:
    """One metric of one row; a dash where it was not measured, `NO_NUMBER` where that gave none."""
    score: Mapping[str, Any] | None = row["scores"].get(column.key)
    if score is None:
        return Cell("-")
    warnings = tuple(score["warnings"])
    if not is_number(score["value"]):
        return Cell(NO_NUMBER, warnings=warnings)
    ends = [score["low"], score["high"]]
    below = " to ".join(column.pattern.format(end) for end in ends) if all(map(is_number, ends)) else ""
    return Cell(column.pattern.format(score["value"]), below, warnings)


def _table(title: str, rows: Sequence[Row]) -> Table:
    columns = measured(rows)
    groups = tuple(
        Group(f"guidance scale {scale:g}", tuple(_line(row, columns) for row in sorted(group, key=_place)))
        for scale, group in _grouped(rows, lambda row: row["teacher_scale"]).items()
    )
    return Table(title, ("method", "NFE ↓", *(heading(column, rows) for column in columns)), groups)


def _line(row: Row, columns: Sequence[Column]) -> tuple[Cell, ...]:
    return (Cell(row["name"]), Cell(f"{row['nfe']:g}"), *(cell(row, column) for column in columns))


def _place(row: Row) -> int:
    return _ORDER.get(row["method"], _ADAPTERS)


def _grouped(rows: Sequence[Row], key: Callable[[Row], _Key]) -> dict[_Key, list[Row]]:
    groups: dict[_Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
