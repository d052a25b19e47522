"""What was measured night after night, append-only: one small sealed Parquet file per adapter and night.

    <folder>/<adapter name>/<night>.parquet

A file appears whole or not at all and is never changed; one that no longer is what was written is named and left out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from agd_core.basics.atomic import write_bytes
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import confined, read_bytes
from storage.errors import Damaged
from storage.sealed_parquet import require_columns, seal, unseal

HISTORY = "history"
"""Name of the folder that holds an output folder's history."""
FORMAT_VERSION = "1"
_SUFFIX = ".parquet"
_DIRECTIONS = ("lower", "higher")
_MOST_BYTES = 16 << 20
_MOST_RECORDS = 1000
"""Of one adapter in one night."""
_TYPES: dict[Any, pa.DataType] = {str: pa.string(), int: pa.int64(), float: pa.float64()}


@dataclass(frozen=True)
class MetricRecord:
    """One metric of one adapter in one night."""

    night: str
    """Begins with the ISO date, so that nights sort by their names."""
    name: str
    """Of the adapter, as it was registered."""
    adapter_digest: str
    """sha256 of the adapter's weights file that night."""
    base_fingerprint: str
    protocol_digest: str
    """Identity of how it was sampled and scored; only nights of one protocol compare."""
    seed: int
    """Seeds the night's images."""
    metric: str
    value: float
    standard_error: float
    better: str
    """ "lower" or "higher"."""
    images: int
    nfe: float
    """Network evaluations per image of the samples behind the value."""
    seconds: float
    """Denoising those samples."""
    device: str
    versions: str
    """JSON: library versions by name."""
    finished_at: str
    """ISO date and time, UTC."""


_SCHEMA = pa.schema([(field.name, _TYPES[field.type]) for field in fields(MetricRecord)])


@dataclass(frozen=True)
class Nights:
    """What a history holds."""

    table: pa.Table
    """One row per record, sorted by night, then name."""
    problems: list[str]
    """One line per file that is not what was written."""

    @property
    def records(self) -> list[MetricRecord]:
        """The rows."""
        return [MetricRecord(**row) for row in self.table.to_pylist()]


@dataclass(frozen=True)
class History:
    """All nights below one folder."""

    folder: Path

    def append(self, records: Sequence[MetricRecord]) -> Path:
        """Add the records of one adapter and night; a night that is there already stays as it is.

        Raises:
            ValueError: no records, or records of several adapters or nights.
        """
        if len(keys := {(record.name, record.night) for record in records}) != 1:
            raise ValueError(f"one adapter and night at a time, got {sorted(keys)}")
        ((name, night),) = keys
        if not self.night(name, night):
            table = pa.Table.from_pylist([asdict(record) for record in records], schema=_SCHEMA)
            write_bytes(seal(table, {"format_version": FORMAT_VERSION}), self._path(name, night))
        return self._path(name, night)

    def night(self, name: str, night: str) -> list[MetricRecord]:
        """The records of one adapter and night; none where there is no intact file of it."""
        path = self._path(name, night)
        return _read([path]).records if path.is_file() else []

    def read(self, name: str = "*") -> Nights:
        """All nights of all adapters, or of one."""
        paths = sorted(self.folder.glob(f"{name}/*{_SUFFIX}"), key=lambda path: (path.stem, path.parent.name))
        return _read(paths)

    def _path(self, name: str, night: str) -> Path:
        return confined(self.folder, f"{name}/{night}{_SUFFIX}")


def _read(paths: Sequence[Path]) -> Nights:
    tables, problems = [_SCHEMA.empty_table()], []
    for path in paths:
        try:
            tables.append(_read_file(path))
        except (InputError, OSError) as error:
            problems.append(f"{path}: {error}")
    return Nights(pa.concat_tables(tables), problems)


def _read_file(path: Path) -> pa.Table:
    folder = path.parent.parent
    table, footer = unseal(read_bytes(confined(folder, path.relative_to(folder).as_posix()), _MOST_BYTES))
    if (found := footer.get("format_version")) != FORMAT_VERSION:
        raise Damaged(f"has format version {found}, this is version {FORMAT_VERSION}")
    require_columns(table, _SCHEMA)
    if len(table) > _MOST_RECORDS:
        raise Damaged("holds more than a night measures")
    table = table.select(_SCHEMA.names).cast(_SCHEMA)
    rows: list[dict[str, Any]] = table.to_pylist()
    if any((row["name"], row["night"]) != (path.parent.name, path.stem) for row in rows):
        raise Damaged("holds another adapter or night than its name says")
    if not all(row["better"] in _DIRECTIONS for row in rows):
        raise Damaged("holds what no night measures")
    return table
