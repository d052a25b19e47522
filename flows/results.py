"""Results that lie in a folder: the rows of its metrics.json, checked before anything is compared."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agd_core.basics.checksums import LISTS, is_sealed, read_sums, require_intact
from agd_core.basics.digest import file_digest
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import MOST_JSON_BYTES, confined, printable, read_json, require_regular
from agd_core.evaluation.rows import Row
from agd_core.methods.adapter_files import WEIGHTS
from flows.published import METRICS_FILE
from flows.stored_rows import stored_rows

_PARTS = ("rows", "curve", "all_rows")
_NEW = {"scores", "protocol"}


@dataclass(frozen=True)
class Results:
    """What a metrics.json says."""

    rows: Sequence[Row]
    doubt: str | None
    """Why it may not be what a run wrote, in words; None where its seal or the checksums beside it prove it."""


def read_results(place: Path, allow_edited: bool = False) -> Results:
    """Every row of a metrics.json, sweep.json or shootout.json once: the headline, the step curve, then the others.

    Args:
        place: the file, or a folder that holds it.
        allow_edited: take a file that is not as a run wrote it, with a doubt.

    Raises:
        InputError: nothing there, not readable, edited, without evaluated rows, made before rows had a protocol, with
            numbers that no run writes, or measured with other weights than lie beside it.
    """
    path = _file(place)
    try:
        metrics = read_json(path)
    except InputError as error:
        raise InputError(f"{printable(path)} holds no readable results: {error}") from error
    rows = _once(metrics, path)
    if any(isinstance(row, dict) and not (row.keys() >= _NEW and row["protocol"]) for row in rows):
        raise InputError(f"{printable(path)} was made before protocols were recorded; evaluate again")
    doubt = _doubt(metrics, path, allow_edited)
    try:
        found = stored_rows(rows)
    except InputError as error:
        raise InputError(f"{printable(path)} holds no readable results: {error}") from error
    if not any(row.scores for row in found):
        raise InputError(f"{printable(path)} has no evaluated rows")
    _check_weights(metrics, path)
    return Results(found, doubt)


def _doubt(metrics: dict[str, Any], path: Path, allow_edited: bool) -> str | None:
    if "seal" in metrics:
        edited = None if is_sealed(metrics) else "its seal does not fit"
    else:
        try:
            if path.name not in (read_sums(path.parent, LISTS) or {}):
                return f"{printable(path)} has no seal and no checksums: of an older version, or not written by a run"
            require_intact(path.parent, (path.name,), MOST_JSON_BYTES)
            return None
        except InputError as error:
            edited = str(error)
    if edited and not allow_edited:
        raise InputError(
            f"{printable(path)} was edited or damaged since a run wrote it ({edited}); run its command again, or "
            "compare it nevertheless with --allow edited"
        )
    return f"{printable(path)} was edited or damaged since a run wrote it ({edited})" if edited else None


def _file(place: Path) -> Path:
    if not place.exists():
        raise InputError(f"{place}: no such file or folder")
    path = confined(place, METRICS_FILE) if place.is_dir() else place
    if not os.path.lexists(path):
        raise InputError(f"{place} holds no {METRICS_FILE}; `agd evaluate` writes one")
    return path


def _once(metrics: Any, path: Path) -> list[Any]:
    """Equal rows once, in the order of their first."""
    known = isinstance(metrics, dict) and "rows" in metrics
    parts: list[Any] = [metrics.get(part, []) for part in _PARTS] if known else []
    if not parts or not all(isinstance(part, list) for part in parts):
        raise InputError(f"{printable(path)} holds no readable results: no object with lists of rows")
    return list({json.dumps(row, sort_keys=True): row for part in parts for row in part}.values())


def _check_weights(metrics: dict[str, Any], path: Path) -> None:
    """Numbers beside an adapter must be those of that adapter."""
    weights = confined(path.parent, WEIGHTS)
    if os.path.lexists(weights):
        require_regular(weights)
    if weights.is_file() and file_digest(weights) != metrics.get("weights_sha256"):
        raise InputError(f"{path} was not measured with the {WEIGHTS} beside it; evaluate again")
