"""The shoot-out in a report: every way to sample as one contestant, and a table of what each took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agd_core.evaluation.rows import Row
from agd_core.report.columns import Group, Table, TableCell

EQUAL_STEPS, OWN_STEPS, UNTRAINED = "equal steps", "steps of its own", "no training"
"""Budgets of training."""
HEADINGS = (
    "method",
    "training steps",
    "a step, ms",
    "training, s",
    "training memory, MB",
    "parameters ↓",
    "file, MB ↓",
    "NFE ↓",
    "GFLOP per image ↓",
    "one image, s ↓",
    "s per image, saturated ↓",
    "sampling memory, MB ↓",
)
_MEGABYTE = 1e6


@dataclass(frozen=True)
class Spent:
    """What training took."""

    steps: int
    batch_size: int
    seeds: tuple[int, ...]
    own_steps: bool
    """Whether the method says its steps itself: those of all are the equal ones."""
    seconds: tuple[float | None, ...] = ()
    """Wall time of every seed's training, see `agd_core.evaluation.rows.Row.training_seconds`."""
    seconds_per_step: float | None = None
    """Measured beside the other methods'; None where costs were not asked for."""
    peak_memory_megabytes: float | None = None
    """Of a step, above the base's weights."""


@dataclass(frozen=True)
class Contestant:
    """One way to sample: trained for one budget, or needing no training."""

    rows: tuple[Row, ...]
    """One per guidance scale, the headline's first: the means over the seeds."""
    pictured: str
    """Name of what has the images that stand for it: a single training."""
    method: str = ""
    """What of it was trained, whatever the budget: contestants of one method have the same; "" where nothing was."""
    spent: Spent | None = None
    cost: Mapping[str, Any] | None = None
    """Of a sampler's step, see `agd_core.evaluation.cost.Cost.as_dict`; None where it was not measured."""

    @property
    def name(self) -> str:
        """How the report calls it."""
        return self.rows[0].name

    @property
    def budget(self) -> str:
        """One of the three."""
        return UNTRAINED if self.spent is None else OWN_STEPS if self.spent.own_steps else EQUAL_STEPS

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the rows."""
        spent = self.spent and {**vars(self.spent), "seeds": [*self.spent.seeds], "seconds": [*self.spent.seconds]}
        costs = {"training": spent, "sampling": self.cost and dict(self.cost)}
        return {"name": self.name, "method": self.method, "budget": self.budget, **costs}


@dataclass(frozen=True)
class Contest:
    """All that took part."""

    contestants: tuple[Contestant, ...]
    """No guidance, the teacher, what was trained, then what needs no training."""

    @property
    def unguided(self) -> Contestant:
        """No guidance."""
        return next(contestant for contestant in self.contestants if contestant.rows[0].method == "none")

    @property
    def teacher(self) -> Contestant:
        """The guided base model."""
        return next(contestant for contestant in self.contestants if contestant.rows[0].is_teacher)

    @property
    def trained(self) -> list[Contestant]:
        """What was trained."""
        return [contestant for contestant in self.contestants if contestant.spent]

    @property
    def spared(self) -> list[Contestant]:
        """What spares passes of the teacher's and needs no training."""
        return [
            contestant
            for contestant in self.contestants
            if not contestant.spent and contestant not in (self.unguided, self.teacher)
        ]

    @property
    def rows(self) -> list[Row]:
        """Every row, scale by scale, the headline's first."""
        return [
            row
            for together in zip(*(contestant.rows for contestant in self.contestants), strict=True)
            for row in together
        ]

    def of_budget(self, budget: str) -> list[Contestant]:
        """What was trained with this budget, and what is of a method that has none."""
        having = {contestant.method for contestant in self.trained if contestant.budget == budget}
        return [each for each in self.trained if each.budget == budget or each.method not in having]

    @property
    def budgets(self) -> dict[str, list[Contestant]]:
        """The contestants of every budget of training that some method has."""
        found = {contestant.budget for contestant in self.trained}
        return {budget: self.of_budget(budget) for budget in (EQUAL_STEPS, OWN_STEPS) if budget in found}


def took(contest: Contest) -> Table:
    """What training and an image took, one line per contestant, grouped by budget."""
    groups = [
        Group(title, tuple(_line(contestant) for contestant in contest.contestants if contestant.budget == title))
        for title in (EQUAL_STEPS, OWN_STEPS, UNTRAINED)
    ]
    return Table("What each takes", HEADINGS, tuple(group for group in groups if group.lines))


def _line(contestant: Contestant) -> tuple[TableCell, ...]:
    row, cost = contestant.rows[0], contestant.cost or {}
    trained = (TableCell("-"),) * 6 if contestant.spent is None else _trained(contestant.spent, row)
    return (
        TableCell(contestant.name),
        *trained,
        TableCell(f"{row.nfe:g}"),
        _cell(_times(cost.get("gigaflops_per_step"), row.steps), "{:,.3g}"),
        _cell(_times(cost.get("milliseconds_per_step_batch_1"), row.steps / 1e3), "{:.3g}"),
        _cell(_times(_inverse(cost.get("evaluated_images_per_second")), row.steps), "{:.3g}"),
        _cell(cost.get("peak_memory_megabytes"), "{:,.0f}", f"batch {cost.get('saturation_batch')}"),
    )


def _trained(spent: Spent, row: Row) -> tuple[TableCell, ...]:
    return (
        TableCell(f"{spent.steps:,}", f"of {spent.batch_size}"),
        _cell(_times(spent.seconds_per_step, 1e3), "{:,.1f}"),
        _cell(row.training_seconds, "{:,.1f}", _range([seconds for seconds in spent.seconds if seconds is not None])),
        _cell(spent.peak_memory_megabytes, "{:,.0f}"),
        TableCell(f"{row.adapter_parameters:,}", f"{row.adapter_percent:.2g} % of the base"),
        _cell(_times(row.adapter_bytes, 1 / _MEGABYTE), "{:.2f}"),
    )


def _range(numbers: Sequence[float]) -> str:
    return f"{min(numbers):,.1f} to {max(numbers):,.1f}" if len(numbers) > 1 else ""


def _cell(number: float | int | None, pattern: str, below: str = "") -> TableCell:
    return TableCell("-") if number is None else TableCell(pattern.format(number), below)


def _times(number: float | int | None, factor: float | int) -> float | None:
    return None if number is None else number * factor


def _inverse(number: float | None) -> float | None:
    return None if number is None else 1 / number
