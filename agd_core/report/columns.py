"""The tables of all that was measured: one per sampler, grouped by guidance scale as the AGD paper prints them."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from agd_core.evaluation.comparing.against_teacher import against_teacher, teacher_beside
from agd_core.evaluation.metrics import Quantity, quantities
from agd_core.evaluation.metrics.distance import FD
from agd_core.evaluation.rows import NO_NUMBER, Row

_SAID = ("better", "same", "worse")
"""Verdicts that stand in a table; where there is none, nothing does."""
ARROWS = {"lower": "↓", "higher": "↑"}
"""Behind a heading: the good direction."""
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class TableCell:
    """One number of a table."""

    text: str
    below: str = ""
    """What stands below it in small: its 95 % interval."""
    warnings: tuple[str, ...] = ()
    verdict: str = ""
    """How it compares with the teacher's number at 95 %, below the interval."""


@dataclass(frozen=True)
class Group:
    """Every method at one guidance scale: the teacher, the adapters, what needs no training, no guidance."""

    title: str
    lines: tuple[tuple[TableCell, ...], ...]


@dataclass(frozen=True)
class Table:
    """Every method at every guidance scale, of one scheduler and step count."""

    title: str
    headings: tuple[str, ...]
    groups: tuple[Group, ...]


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table per scheduler and step count, in the order of the rows; a column only for what was measured."""
    samplers = _grouped(rows, lambda row: (row.scheduler, row.steps))
    return [_table(f"{scheduler}, {steps} steps", group) for (scheduler, steps), group in samplers.items()]


def measured(rows: Sequence[Row]) -> list[Quantity]:
    """What some row has a score of; what this version does not know comes last."""
    found = {name: score.better for row in rows for name, score in row.scores.items()}
    known = quantities()
    new = [Quantity(name, better, name.replace("_", " "), "{:.4g}", "") for name, better in found.items()]
    return [known[name] for name in known if name in found] + [other for other in new if other.name not in known]


def heading(column: Quantity, rows: Sequence[Row]) -> str:
    """A metric's name with the good direction."""
    directions = {row.scores[column.name].better for row in rows if column.name in row.scores}
    return f"{_name(column, rows)} {'/'.join(ARROWS[direction] for direction in sorted(directions))}"


def _name(column: Quantity, rows: Sequence[Row]) -> str:
    """The metric's name; the Frechet distance has the one that its extractor gives it."""
    names = {row.protocol.get("distance", FD.heading) for row in rows}
    return column.heading.replace(FD.heading, names.pop()) if len(names) == 1 else column.heading


def explained(rows: Sequence[Row]) -> dict[str, str]:
    """What every measured metric means, by its heading with the good direction."""
    return {heading(column, rows): column.meaning for column in measured(rows) if column.meaning}


def warned(rows: Sequence[Row]) -> dict[str, str]:
    """Every warning, once, with the metrics that it belongs to."""
    metrics: dict[str, list[str]] = {}
    for column in measured(rows):
        for row in rows:
            for warning in row.scores[column.name].warnings if column.name in row.scores else ():
                metrics.setdefault(warning, []).append(column.heading)
    return {warning: ", ".join(dict.fromkeys(names)) for warning, names in metrics.items()}


def cell(row: Row, column: Quantity) -> TableCell:
    """One metric of one row; a dash where it was not measured, `NO_NUMBER` where that gave none."""
    if (score := row.scores.get(column.name)) is None:
        return TableCell("-")
    if score.value is None:
        return TableCell(NO_NUMBER, warnings=score.warnings)
    ends = [end for end in (score.low, score.high) if end is not None]
    below = " to ".join(map(column.format.format, ends)) if len(ends) == 2 else ""
    return TableCell(column.format.format(score.value), below, score.warnings)


def _table(title: str, rows: Sequence[Row]) -> Table:
    columns = measured(rows)
    groups = tuple(
        Group(f"guidance scale {scale:g}", tuple(_line(row, columns, rows) for row in sorted(group, key=_place)))
        for scale, group in _grouped(rows, lambda row: row.teacher_scale).items()
    )
    return Table(title, ("method", "NFE ↓", *(heading(column, rows) for column in columns)), groups)


def _line(row: Row, columns: Sequence[Quantity], rows: Sequence[Row]) -> tuple[TableCell, ...]:
    verdicts = against_teacher(row, teacher_beside(row, rows))
    said = {name: verdict for name, verdict in verdicts.items() if verdict in _SAID}
    cells = (replace(cell(row, column), verdict=said.get(column.name, "")) for column in columns)
    return (TableCell(row.name), TableCell(f"{row.nfe:g}"), *cells)


def _place(row: Row) -> int:
    """The teacher, then what was trained, then what spares passes without training, then no guidance."""
    if row.method == "none":
        return 3
    return 0 if row.is_teacher else 1 if row.training_free is None else 2


def _grouped(rows: Sequence[Row], key: Callable[[Row], _Key]) -> dict[_Key, list[Row]]:
    groups: dict[_Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
