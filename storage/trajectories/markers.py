"""Commit markers: one sealed Parquet file per work unit, written exclusively and last. No marker, no unit."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa

from agd_core.data.records import CollectionPlan
from storage.errors import Damaged
from storage.sealed_parquet import require_columns, seal, unseal
from storage.trajectories.layout import StoreLayout

MARKERS = "index"
_SHARD_COLUMNS = ["key", "size", "crc32c", "content", "provenance"]
_SCHEMA = pa.schema(
    [
        ("trajectory", pa.int64()),
        ("unit", pa.int32()),
        ("key", pa.string()),
        ("size", pa.int64()),
        ("crc32c", pa.uint32()),
        ("content", pa.string()),
        ("chunk_count", pa.int32()),
        ("steps", pa.list_(pa.int32())),
        ("x_absmax", pa.float32()),
        ("eps_absmax", pa.float32()),
        ("nonfinite", pa.int32()),
        ("provenance", pa.string()),
        ("attempt_id", pa.string()),
        ("writer_version", pa.string()),
        ("started_at", pa.timestamp("ms", tz="UTC")),
        ("finished_at", pa.timestamp("ms", tz="UTC")),
        ("device", pa.string()),
    ]
)


@dataclass(frozen=True)
class CommittedShard:
    """One shard of a committed unit."""

    number: int
    key: str
    size: int
    crc32c: int
    """Of the whole object: says that it is whole, not what it holds."""
    content: str
    """`storage.trajectories.pairs.shard_content` of its pairs."""
    provenance: str
    """"new", or "adopted" where it was found finished: by a killed writer, or in a store of the same settings."""


def marker_key(unit: int) -> str:
    """Where the marker of a unit lies."""
    return f"{MARKERS}/u-{unit:06d}.parquet"


def _writer_version() -> str:
    """Of this package; a checkout that was not installed says so."""
    try:
        return version("agd-pipeline")
    except PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class WrittenShard:
    """A shard that is there, with what its marker says about every trajectory in it."""

    shard: CommittedShard
    absmax: tuple[tuple[float, float], ...]
    """Largest magnitude of (input, prediction with its variance) of each trajectory."""


def write_marker(
    plan: CollectionPlan, unit: int, written: Sequence[WrittenShard], started_at: datetime, device: str
) -> bytes:
    """The marker of a unit, one row per trajectory; `device` says in words what computed it."""
    attempt = {
        "unit": unit,
        "nonfinite": 0,
        "attempt_id": uuid.uuid4().hex,
        "writer_version": _writer_version(),
        "started_at": started_at,
        "finished_at": datetime.now(UTC),
        "device": device,
    }
    rows = [row | attempt for shard in written for row in _shard_rows(plan, shard)]
    return seal(pa.Table.from_pylist(rows, schema=_SCHEMA), {"unit_id": plan.unit_ids[unit]})


def read_marker(data: bytes, plan: CollectionPlan, unit: int) -> list[CommittedShard]:
    """The shards that a marker vouches for.

    A marker names what its unit holds, so it says the same in a store of the same settings and any length.

    Raises:
        Damaged: damaged, of a unit that holds something else, or of other shards than its own.
    """
    table, footer = unseal(data)
    if footer.get("unit_id") != plan.unit_ids[unit]:
        raise Damaged("belongs to another unit or dataset")
    require_columns(table, _SCHEMA)
    if len(table) != len(plan.unit(unit)):
        raise Damaged("has another number of trajectories than its unit")
    heads = table.select(_SHARD_COLUMNS).take(np.arange(0, len(table), plan.shard_trajectories)).to_pylist()
    shards = [CommittedShard(number, **head) for number, head in zip(plan.unit_shards(unit), heads, strict=True)]
    layout = StoreLayout(plan)
    if any(shard.key != layout.key(shard.number) or shard.size < 0 for shard in shards):
        raise Damaged("names other shards than its unit has")
    return shards


def marker_device(data: bytes) -> str:
    """What computed the unit of an intact marker, in words."""
    return str(unseal(data)[0]["device"][0].as_py())


def _shard_rows(plan: CollectionPlan, written: WrittenShard) -> list[dict[str, Any]]:
    first = written.shard.number * plan.shard_trajectories
    known = {name: value for name, value in asdict(written.shard).items() if name != "number"}
    return [
        known
        | {
            "trajectory": first + row,
            "chunk_count": StoreLayout(plan).chunks_per_trajectory,
            "steps": list(plan.trajectories[first + row].steps),
            "x_absmax": absmax[0],
            "eps_absmax": absmax[1],
        }
        for row, absmax in enumerate(written.absmax)
    ]
