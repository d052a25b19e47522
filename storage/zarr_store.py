"""The trajectory store: one sharded Zarr v3 array, an immutable plan, one commit marker per work unit.

    <root>/latents      [trajectories, kept_steps, 2, C, H, W]; one step per inner chunk, crc32c, no compression
    <root>/plan.parquet one row per planned trajectory, written before any unit
    <root>/units/u-<unit>.json  marker of a committed unit (file, bytes, sha256), written last

A unit is one shard. A trajectory exists if and only if its unit's marker does; missing shards read as NaN.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from zarr.codecs import Crc32cCodec

from agd_core.digest import file_digest
from agd_core.records import PlannedTrajectory, StepBatch
from storage.atomic import sync_file, sync_folder, write_bytes

FORMAT_VERSION = 1
_IN_MEMORY_BYTES = 2 << 30
_PLAN_SCHEMA = pa.schema(
    [
        ("index", pa.int64()),
        ("seed", pa.int64()),
        ("class_label", pa.int64()),
        ("guidance_scale", pa.float32()),
        ("steps", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True)
class StoreSpec:
    """What a store is created with."""

    latent_shape: tuple[int, int, int]
    dtype: str
    """numpy name of the stored type: float16 or float32."""
    shard_trajectories: int
    schedule: tuple[float, ...]
    """The timestep handed to the network at every sampler step."""
    attributes: dict[str, Any]
    """Plain data that says where the trajectories come from; kept in the array's attributes."""


class ZarrTrajectoryWriter:
    """Creates the store, or opens it to continue; a `TrajectoryWriter`."""

    def __init__(self, root: Path, plan: Sequence[PlannedTrajectory], spec: StoreSpec) -> None:
        self.root = root
        self.plan = plan
        self.spec = spec
        self._latents = _open(root, plan, spec)

    @property
    def units(self) -> int:
        """How many work units the plan has."""
        return -(-len(self.plan) // self.spec.shard_trajectories)

    def missing_units(self) -> list[int]:
        """Units without a marker, or whose shard no longer has the size and sha256 that its marker says."""
        return [unit for unit in range(self.units) if not self._intact(unit)]

    def planned(self, unit: int) -> Sequence[PlannedTrajectory]:
        """The trajectories of one unit; the last unit may be shorter."""
        first = unit * self.spec.shard_trajectories
        return self.plan[first : first + self.spec.shard_trajectories]

    def commit(self, unit: int, latents: np.ndarray) -> None:
        """Write the unit's shard, force it to disk, then write its marker.

        Raises:
            ValueError: the latents are not those of the whole unit.
        """
        expected = (len(self.planned(unit)), *self._latents.shape[1:])
        if latents.shape != expected:
            raise ValueError(f"unit {unit} takes latents of shape {expected}, got {latents.shape}")
        first, shard = unit * self.spec.shard_trajectories, self._shard(unit)
        self._marker(unit).unlink(missing_ok=True)
        shard.unlink(missing_ok=True)  # zarr would read an old shard first, and fail on a torn one
        self._latents[first : first + len(latents)] = latents
        sync_file(shard)
        sync_folder(shard.parent)
        marker = {
            "unit": unit,
            "file": shard.relative_to(self.root).as_posix(),
            "bytes": shard.stat().st_size,
            "sha256": file_digest(shard),
        }
        write_bytes(json.dumps(marker, sort_keys=True).encode(), self._marker(unit))

    def _intact(self, unit: int) -> bool:
        try:
            marker = json.loads(self._marker(unit).read_text(encoding="utf-8"))
            shard = self._shard(unit)
            return bool(shard.stat().st_size == marker["bytes"] and file_digest(shard) == marker["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _marker(self, unit: int) -> Path:
        return self.root / "units" / f"u-{unit:06d}.json"

    def _shard(self, unit: int) -> Path:
        return self.root / "latents" / "c" / str(unit) / "0/0/0/0/0"


class ZarrTrajectoryReader:
    """Random access to a finished store; a `TrajectoryReader`. Small stores are read into memory once."""

    def __init__(self, root: Path) -> None:
        self._latents = zarr.open_array(store=root / "latents", mode="r")
        plan = pq.read_table(root / "plan.parquet")
        steps = np.asarray(plan["steps"].to_pylist(), dtype=np.int64)  # [N, kept_steps]
        self._timesteps = np.asarray(self._latents.attrs["schedule"], dtype=np.float32)[steps]
        self._class_labels = plan["class_label"].to_numpy()
        self._guidance_scales = plan["guidance_scale"].to_numpy()
        self._trajectories, self._kept_steps = len(steps), int(steps.shape[1])
        self._source: Any = self._latents[: len(steps)] if self._latents.nbytes <= _IN_MEMORY_BYTES else self._latents

    @property
    def pairs(self) -> int:
        """Trajectories times kept steps."""
        return self._trajectories * self._kept_steps

    def read(self, pairs: np.ndarray) -> StepBatch:
        """The pairs of these indices; crc32c is checked on everything that comes from disk."""
        trajectories, slots = np.divmod(pairs, self._kept_steps)
        return StepBatch(
            latents=self._gather(trajectories, slots),
            timesteps=self._timesteps[trajectories, slots],
            class_labels=self._class_labels[trajectories],
            guidance_scales=self._guidance_scales[trajectories],
        )

    def _gather(self, trajectories: np.ndarray, slots: np.ndarray) -> np.ndarray:
        if isinstance(self._source, np.ndarray):
            gathered: np.ndarray = self._source[trajectories, slots]
            return gathered
        return np.stack([self._source[i, j] for i, j in zip(trajectories.tolist(), slots.tolist(), strict=True)])


def _open(root: Path, plan: Sequence[PlannedTrajectory], spec: StoreSpec) -> zarr.Array[Any]:
    """Write metadata and plan, whatever was there, and open the array; the shards keep their own checksums."""
    write_bytes(_array_metadata(plan, spec), root / "latents" / "zarr.json")
    write_bytes(_plan_table(plan), root / "plan.parquet")
    with zarr.config.set({"array.write_empty_chunks": True}):
        return zarr.open_array(store=root / "latents", mode="r+")


def _array_metadata(plan: Sequence[PlannedTrajectory], spec: StoreSpec) -> bytes:
    """The array's zarr.json, made by zarr itself in memory."""
    files: dict[str, Any] = {}
    shape = (len(plan), len(plan[0].steps), 2, *spec.latent_shape)
    zarr.create_array(
        store=zarr.storage.MemoryStore(files),
        shape=shape,
        shards=(spec.shard_trajectories, *shape[1:]),
        chunks=(1, 1, *shape[2:]),
        dtype=spec.dtype,
        fill_value=np.nan,
        filters=None,
        compressors=[Crc32cCodec()],
        attributes={"format_version": FORMAT_VERSION, "schedule": list(spec.schedule), **spec.attributes},
    )
    metadata: bytes = files["zarr.json"].to_bytes()
    return metadata


def _plan_table(plan: Sequence[PlannedTrajectory]) -> bytes:
    table = pa.Table.from_pylist([asdict(row) for row in plan], schema=_PLAN_SCHEMA)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    content: bytes = buffer.getvalue().to_pybytes()
    return content
