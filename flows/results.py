"""Results that lie in a folder: the rows of its metrics.json, checked before anything is compared."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from agd_core.adapter_files import WEIGHTS
from agd_core.digest import file_digest
from agd_core.errors import InputError, first_line
from agd_core.metrics.base import Better
from agd_core.report.rows import Row

METRICS = "metrics.json"
"""Lies in an output folder, in a report's artefact and beside a published adapter."""


class _StoredScore(BaseModel):
    value: float | None
    better: Better
    standard_error: float | None
    low: float | None
    high: float | None
    warnings: list[str]


class _StoredRow(BaseModel):
    name: str
    method: str
    guidance_scale: float
    teacher_scale: float
    scheduler: str
    steps: int
    nfe: float
    adapter_parameters: int
    scores: dict[str, _StoredScore]
    protocol: dict[str, Any]


_NEW = {"scores", "protocol"}
_ROWS = TypeAdapter(list[_StoredRow])


def read_rows(place: Path) -> Sequence[Row]:
    """Every row of a metrics.json or sweep.json once: the headline, the step curve, then all other points.

    Args:
        place: the file, or a folder that holds it.

    Raises:
        InputError: nothing there, not readable, without evaluated rows, made before rows had a protocol, or
            measured with other weights than lie beside it.
    """
    path = _file(place)
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        rows = _once([*metrics["rows"], *metrics.get("curve", ()), *metrics.get("all_rows", ())])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no readable results: {type(error).__name__}: {first_line(error)}") from error
    if any(isinstance(row, dict) and not (row.keys() >= _NEW and row["protocol"]) for row in rows):
        raise InputError(f"{path} was made before protocols were recorded; evaluate again")
    _check(rows, path)
    if not any(row["scores"] for row in rows):
        raise InputError(f"{path} has no evaluated rows")
    _check_weights(metrics, path)
    return cast(Sequence[Row], rows)


def _file(place: Path) -> Path:
    if not place.exists():
        raise InputError(f"{place}: no such file or folder")
    path = place / METRICS if place.is_dir() else place
    if not path.is_file():
        raise InputError(f"{place} holds no {METRICS}; `agd evaluate` writes one")
    return path


def _once(rows: list[Any]) -> list[Any]:
    """Equal rows once, in the order of their first."""
    return list({json.dumps(row, sort_keys=True): row for row in rows}.values())


def _check_weights(metrics: dict[str, Any], path: Path) -> None:
    """Numbers beside an adapter must be those of that adapter."""
    weights = path.parent / WEIGHTS
    if weights.is_file() and file_digest(weights) != metrics.get("weights_sha256"):
        raise InputError(f"{path} was not measured with the {WEIGHTS} beside it; evaluate again")


def _check(rows: list[Any], path: Path) -> None:
    try:
        _ROWS.validate_python(rows)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} holds no readable results: rows.{where}: {first['msg']}") from error
