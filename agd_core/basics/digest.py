"""Canonical JSON and sha256: the identity of configs, files and artefacts."""

import hashlib
import json
from pathlib import Path
from typing import Any

_BLOCK_BYTES = 1 << 20


def canonical_json(value: Any) -> str:
    """Serialise plain data so that equal values give equal text, whatever their key order.

    Raises:
        TypeError: for anything that JSON cannot hold (a tensor, a path, a set): identity fails closed.
        ValueError: for NaN and infinities.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: Any) -> str:
    """sha256 (64 hex digits) of the canonical JSON of plain data."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 (64 hex digits) of a file's bytes, read in blocks."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()
