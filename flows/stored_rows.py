"""Rows of a metrics.json that may have been made by anybody: nothing in it is believed before it was looked at here."""

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agd_core.basics.config_problems import first_problem
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from agd_core.evaluation.metrics import quantities
from agd_core.evaluation.rows import Row

_ROWS = TypeAdapter(list[Row])


def stored_rows(rows: Sequence[Any]) -> list[Row]:
    """The rows, proved to be what a run writes: types, and numbers that a measurement can give.

    Raises:
        InputError: names the row, the field and what is wrong.
    """
    try:
        found = _ROWS.validate_python(list(rows))
    except ValidationError as error:
        raise InputError(f"rows.{first_problem(error, list[Row])}") from error
    for number, row in enumerate(found):
        for problem in _contradictions(row):
            raise InputError(f"rows.{number} ({printable(row.name)}): {problem}")
    return found


def _contradictions(row: Row) -> Iterator[str]:
    said = {"steps": row.steps, "scheduler": row.scheduler, "guidance_scale": row.teacher_scale}
    recorded: dict[str, Any] = {**row.protocol}
    for field, value in said.items():
        if field in recorded and recorded[field] != value:
            yield f"protocol.{field} is {recorded[field]!r}, the row has {value!r}"
    for name, score in row.scores.items():
        known = quantities().get(name)
        if known and score.value is not None and not known.least <= score.value <= known.most:
            yield f"scores.{name}.value is {score.value:g}, which no {name} can be"
