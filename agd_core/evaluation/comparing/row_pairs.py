"""Which rows of two sources belong together: the same method, or the only one, at the same point."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from agd_core.basics.errors import InputError
from agd_core.evaluation.rows import Row

RowPoint = tuple[float, str, int]
"""Guidance scale asked for, scheduler, steps."""
Methods = Mapping[str, Mapping[RowPoint, Row]]
"""Rows by method and point."""

_POINT_FIELDS = ("guidance_scale", "scheduler", "steps")


@dataclass(frozen=True)
class Source:
    """Where rows come from."""

    label: str
    """A letter."""
    place: str
    rows: Sequence[Row]

    def methods(self, wanted: Collection[str]) -> Methods:
        """Rows of the methods of these names or kinds; of every adapter if none is wanted.

        Raises:
            InputError: there is no such row.
        """
        found: dict[str, dict[RowPoint, Row]] = {}
        for row in self.rows:
            if row.name in wanted or row.method in wanted or (not wanted and row.adapter_parameters):
                found.setdefault(row.name, {}).setdefault(point_of(row), row)
        if not found:
            names = ", ".join(dict.fromkeys(row.name for row in self.rows))
            raise InputError(f"{self.place}: no row of {', '.join(wanted) or 'an adapter'}; --method takes {names}")
        return found


@dataclass(frozen=True)
class RowPairs:
    """What belongs together in two sources."""

    rows: Sequence[tuple[Row, Row]]
    lacking: Sequence[str]
    """In words, what one of them has and the other one lacks."""


def pair_rows(a: Source, b: Source, wanted: Collection[str], allowed: Collection[str]) -> RowPairs:
    """Pair the rows of two sources.

    Methods: where one source has a single one, it is paired with all of the other's; otherwise those of the same name
    are. Points: those that both have; where there is none, the first rows of each that differ least, which is for
    their protocols to refuse.

    Args:
        a: the baseline.
        b: the other one.
        wanted: names or kinds of methods; none for every adapter.
        allowed: fields of the protocol that may differ.

    Raises:
        InputError: a source has no such row, or no method is in both.
    """
    mine, theirs = a.methods(wanted), b.methods(wanted)
    names = _pair_names(mine, theirs)
    lacking = _lacking(a, b, mine.keys() - {name for name, _ in names}, theirs.keys() - {name for _, name in names})
    if not names:
        raise InputError(f"no method is in both: {'; '.join(lacking)}; choose with --method")
    rows: list[tuple[Row, Row]] = []
    for name, other_name in names:
        points, other_points = mine[name], theirs[other_name]
        pairs = _pair_points(points, other_points, allowed)
        rows += [(points[here], other_points[there]) for here, there in pairs]
        if points.keys() & other_points.keys():
            lacking += _lacking(a, b, _further(points, other_points, other_name), _further(other_points, points, name))
    return RowPairs(rows, list(dict.fromkeys(lacking)))


def point_of(row: Row) -> RowPoint:
    """Where a row was measured."""
    return row.teacher_scale, row.scheduler, row.steps


def point_in_words(point: RowPoint) -> str:
    """E.g. "scale 2, ddim, 20 steps"."""
    scale, scheduler, steps = point
    return f"scale {scale:g}, {scheduler}, {steps} steps"


def _pair_names(mine: Methods, theirs: Methods) -> list[tuple[str, str]]:
    if len(mine) == 1 or len(theirs) == 1:
        return list(product(mine, theirs))
    return [(name, name) for name in mine if name in theirs]


def _pair_points(
    mine: Collection[RowPoint], theirs: Collection[RowPoint], allowed: Collection[str]
) -> list[tuple[RowPoint, RowPoint]]:
    if shared := [(point, point) for point in mine if point in theirs]:
        return shared
    return [min(product(mine, theirs), key=lambda pair: _unlike(pair[0], pair[1], allowed))]


def _unlike(mine: RowPoint, theirs: RowPoint, allowed: Collection[str]) -> int:
    """In how many fields that may not differ two points do."""
    return sum(a != b and name not in allowed for name, a, b in zip(_POINT_FIELDS, mine, theirs, strict=True))


def _lacking(a: Source, b: Source, only_mine: Collection[str], only_theirs: Collection[str]) -> list[str]:
    sides = ((a, b, only_theirs), (b, a, only_mine))
    return [f"{poor.label} has no {what}, {rich.label} has" for poor, rich, found in sides for what in sorted(found)]


def _further(points: Iterable[RowPoint], known: Collection[RowPoint], name: str) -> list[str]:
    """In words: the method at the points that are not known."""
    return [f"{name} at {point_in_words(point)}" for point in points if point not in known]
