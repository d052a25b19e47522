"""The trajectory store: one sharded Zarr v3 array, an immutable plan, one commit marker per work unit.

    <root>/plan.parquet, zarr.json, cond/, schedule/    prepared before any unit, see `storage.plan_file`
    <root>/latents/c.<shard>.0.0.0.0.0                  a shard of whole trajectories, see `storage.shards`
    <root>/index/u-<unit>.parquet                       marker of a committed unit, written last, see `storage.markers`

A trajectory exists if and only if its unit's marker does. Everything that exists is derivable from plan and markers;
what a killed writer left finished but unmarked is verified and adopted.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import numpy as np

from agd_core.digest import canonical_json
from agd_core.errors import InputError
from agd_core.records import CARRIERS, CollectionPlan, StepBatch, UnitWriter, step_batch
from storage.markers import CommittedShard, marker_key, read_marker, shard_key
from storage.names import PLAN
from storage.objects import ByteRange, ObjectStore
from storage.pairs import content_digest, require_pairs
from storage.plan_file import (
    ListedFile,
    OtherFormat,
    listed_files,
    plan_dataset_id,
    plan_identity,
    prepared_files,
    read_plan,
    steps_per_chunk,
    write_plan,
)
from storage.sealed_parquet import TornFile
from storage.shard_check import whole_shard
from storage.shards import ShardLayout, TornShard, is_whole
from storage.unit_writer import ZarrUnitWriter

_POOL = 4


class OtherContent(ValueError):
    """A store holds trajectories of another identity than the one asked for, or in another format."""


class ZarrTrajectoryStore:
    """A `TrajectoryStore` on a local folder or an object store.

    Args:
        objects: where the bytes are.
        plan: what is stored there.
        device: what computes new units, in words, for their markers.
    """

    def __init__(self, objects: ObjectStore, plan: CollectionPlan, device: str = "") -> None:
        self.objects, self.plan, self.device = objects, plan, device
        self.steps_per_chunk = steps_per_chunk(plan)
        self.chunks_per_trajectory = plan.stored_steps // self.steps_per_chunk
        self.layout = self.layout_of(plan)
        self._offsets: dict[int, np.ndarray] = {}
        self._pool: list[np.ndarray] = []

    @staticmethod
    def layout_of(plan: CollectionPlan) -> ShardLayout:
        """Where everything lies in a shard of this plan."""
        steps = steps_per_chunk(plan)
        return ShardLayout(plan.shard_trajectories * plan.stored_steps // steps, steps * plan.pair_bytes)

    @classmethod
    def prepare(cls, objects: ObjectStore, plan: CollectionPlan, device: str = "") -> ZarrTrajectoryStore:
        """Create the store, or take up one of the same plan; what is torn of its preparation is written again.

        Raises:
            OtherContent: the place holds a store of another plan; the message names the settings that differ.
        """
        with _our_format(objects):
            found = _intact_plan(objects)
            if found is None:
                _write_preparation(objects, plan)
            else:
                _require_same(objects, plan, found)
        objects.remove_abandoned()
        return cls(objects, plan, device)

    @classmethod
    def open(cls, objects: ObjectStore) -> ZarrTrajectoryStore:
        """A store that exists.

        Raises:
            FileNotFoundError: no plan there.
            TornFile: the plan or what it vouches for is damaged.
            OtherContent: another version wrote it.
        """
        data = objects.read(PLAN)
        with _our_format(objects):
            listed = listed_files(data)
        if torn := [key for key in listed if objects.size(key) != listed[key].size]:
            raise TornFile(f"{objects.url}/{torn[0]}: not what was written")
        files = {key: objects.read(key) for key in listed}
        if torn := [key for key in listed if ListedFile.of(files[key]) != listed[key]]:
            raise TornFile(f"{objects.url}/{torn[0]}: not what was written")
        return cls(objects, read_plan(data, files))

    def missing_units(self) -> list[int]:
        """Units without a marker or whose shards are damaged; reads every committed byte of a local store."""
        return [unit for unit in range(self.plan.units) if self.misses(unit)]

    def misses(self, unit: int) -> bool:
        """Whether `missing_units` would name this unit now: other collectors may have committed it meanwhile."""
        return bool(self.unit_problems(unit, deep=self.objects.local))

    def unit_problems(self, unit: int, deep: bool = True) -> list[str]:
        """Why a unit does not count as committed, empty if it does.

        Args:
            unit: its number.
            deep: sum every byte, not only sizes and labels.
        """
        key = marker_key(unit)
        try:
            shards = read_marker(self.objects.read(key), self.plan, unit)
        except FileNotFoundError:
            return [f"{self.objects.url}/{key}: unit {unit} is not committed"]
        except (TornFile, InputError) as error:
            return [f"{self.objects.url}/{key}: marker {error}"]
        return [problem for shard in shards if (problem := self.shard_problem(shard, deep))]

    def shard_problem(self, shard: CommittedShard, deep: bool = True) -> str | None:
        """Why a shard is not what its marker says, None if it is."""
        where = f"{self.objects.url}/{shard.key}"
        try:
            size = self.objects.size(shard.key)
        except InputError as error:
            return str(error)
        if size is None:
            return f"{where}: missing"
        if size != shard.size:
            return f"{where}: {size} bytes instead of {shard.size}"
        try:
            self._chunk_offsets(shard)
        except TornShard as error:
            return f"{where}: {error}"
        return self._deep_problem(shard) if deep else None

    def _deep_problem(self, shard: CommittedShard) -> str | None:
        where = f"{self.objects.url}/{shard.key}"
        try:
            found = whole_shard(self, shard.number).shard
        except TornShard as error:
            return f"{where}: {error}"
        if found.crc32c != shard.crc32c:
            return f"{where}: checksum differs"
        return None if found.content == shard.content else f"{where}: holds other pairs than its marker says"

    @contextmanager
    def write_unit(self, unit: int) -> Iterator[UnitWriter]:
        """Write what is missing of a unit; committed, durably, when the block ends without an error."""
        with self.open_unit(unit) as writer:
            yield writer
            writer.commit()

    @contextmanager
    def open_unit(self, unit: int) -> Iterator[ZarrUnitWriter]:
        """As `write_unit`, but only the writer's `commit` commits."""
        try:
            with ZarrUnitWriter(self, unit) as writer:
                yield writer
        finally:
            for shard in self.plan.unit_shards(unit):
                self._offsets.pop(shard, None)

    def read(self, pairs: np.ndarray) -> StepBatch:
        """The pairs of these indices; crc32c is checked on every chunk read.

        Raises:
            IndexError: the plan has no such pair.
            TornShard: damaged bytes, or a unit that is not committed; names the shard.
        """
        pairs = np.asarray(pairs)
        require_pairs(pairs, self.plan)
        return step_batch(self.plan, pairs, self._gather(*np.divmod(pairs, self.plan.stored_steps)))

    def content_digest(self) -> str:
        """Identity of plan and latents; equal content gives equal digests in every backend.

        Raises:
            ValueError: a unit is missing.
        """
        return content_digest(self.plan, [shard.content for shard in self.committed_shards()])

    def committed_shards(self) -> list[CommittedShard]:
        """Every shard, in order.

        Raises:
            ValueError: a unit is missing or its marker is torn.
        """
        return [shard for unit in range(self.plan.units) for shard in self._marked(unit)]

    def _marked(self, unit: int) -> list[CommittedShard]:
        try:
            return read_marker(self.objects.read(marker_key(unit)), self.plan, unit)
        except (FileNotFoundError, TornFile) as error:
            raise TornShard(f"{self.objects.url}: unit {unit} is not committed") from error

    def _gather(self, trajectories: np.ndarray, slots: np.ndarray) -> np.ndarray:
        per_shard = self.plan.shard_trajectories
        shards = trajectories // per_shard
        chunks = (trajectories % per_shard) * self.chunks_per_trajectory + slots // self.steps_per_chunk
        rows = self._free_rows(len(shards))
        ranges = [self._range(s, c) for s, c in zip(shards.tolist(), chunks.tolist(), strict=True)]
        self._read_checked(sorted(zip(ranges, rows, strict=True), key=itemgetter(0)))
        return self._pairs(rows, slots % self.steps_per_chunk)

    def _read_checked(self, wanted: list[tuple[ByteRange, np.ndarray]]) -> None:
        """Read every range into its row; a row is checked at once, while the processor's cache still has it."""
        ranges, rows = [part for part, _ in wanted], [row for _, row in wanted]
        try:
            torn = next((i for i in self.objects.gather(ranges, rows) if not is_whole(rows[i])), None)
        except (FileNotFoundError, EOFError) as error:
            raise TornShard(f"{self.objects.url}: {error}") from error
        if torn is not None:
            raise TornShard(f"{self.objects.url}/{ranges[torn].key}: checksum differs at byte {ranges[torn].start}")

    def _pairs(self, rows: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """Chunks as they were read to pairs; a view where a chunk is one step."""
        stored = rows[:, : self.layout.chunk_bytes].view(CARRIERS[self.plan.dtype])
        chunks = stored.reshape(len(rows), self.steps_per_chunk, *self.plan.pair_shape)
        return chunks[:, 0] if self.steps_per_chunk == 1 else chunks[np.arange(len(rows)), slots]

    def _range(self, shard: int, chunk: int) -> ByteRange:
        offsets = self._offsets.get(shard)
        if offsets is None:
            offsets = self._offsets[shard] = self._committed_offsets(shard)
        return ByteRange(shard_key(shard), int(offsets[chunk]), self.layout.stride)

    def _committed_offsets(self, number: int) -> np.ndarray:
        shard = next(shard for shard in self._marked(self.plan.unit_of(number)) if shard.number == number)
        try:
            return self._chunk_offsets(shard)
        except (FileNotFoundError, TornShard) as error:
            raise TornShard(f"{self.objects.url}/{shard.key}: {error}") from error

    def _chunk_offsets(self, shard: CommittedShard) -> np.ndarray:
        start = max(0, shard.size - self.layout.tail_bytes)
        tail = self.objects.read(shard.key, start, self.layout.tail_bytes)
        self.layout.check_label(tail, self.plan.unit_ids[self.plan.unit_of(shard.number)], shard.number)
        offsets = self.layout.chunk_offsets(tail)
        chunks = offsets[: self.plan.shard_size(shard.number) * self.chunks_per_trajectory]
        if (chunks < 0).any():
            raise TornShard("lacks chunks")
        if (offsets > start - self.layout.stride).any():
            raise TornShard("names chunks outside of it")
        return offsets

    def _free_rows(self, count: int) -> np.ndarray:
        """A buffer `[count, stride]` that nobody looks at any more, or a new one; fresh pages are the slow part."""
        buffer = _unused(self._pool, count, _UNUSED)
        if buffer is None:
            buffer = np.empty((count, self.layout.stride), dtype=np.uint8)
            self._pool = [*self._pool[-_POOL + 1 :], buffer]
        return buffer

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_offsets": {}, "_pool": []}


def _unused(pool: list[np.ndarray], count: int, references: int) -> np.ndarray | None:
    """A buffer with `count` rows and so many references; looked at while held, so two threads never get the same."""
    for buffer in pool:
        if len(buffer) == count and sys.getrefcount(buffer) == references:
            return buffer
    return None


def _unused_references() -> int:
    """What `sys.getrefcount` says in `_unused` of a buffer that only the pool holds; it depends on the Python."""
    pool = [np.empty((1, 0), dtype=np.uint8)]
    return next(count for count in range(10) if _unused(pool, 1, count) is not None)


_UNUSED = _unused_references()


@contextmanager
def _our_format(objects: ObjectStore) -> Iterator[None]:
    try:
        yield
    except OtherFormat as error:
        raise OtherContent(f"{objects.url} {error}") from error


def _intact_plan(objects: ObjectStore) -> bytes | None:
    """The bytes of the plan; None where there is none. A damaged one is deleted: the settings give it again."""
    try:
        data = objects.read(PLAN)
        plan_identity(data)
    except FileNotFoundError:
        return None
    except TornFile:
        objects.delete(PLAN)
        return None
    return data


def _write_preparation(objects: ObjectStore, plan: CollectionPlan) -> None:
    exclusive = objects.creates_exclusively()
    if not exclusive:
        warnings.warn(
            f"{objects.url} overwrites instead of refusing a second creation: two writers on one unit rely on leases",
            stacklevel=3,
        )
    files = prepared_files(plan, {"conditional_create": exclusive})
    if objects.create(PLAN, write_plan(plan, files)):
        for key, data in files.items():
            objects.put(key, data)
    else:
        _require_same(objects, plan, objects.read(PLAN))


def _require_same(objects: ObjectStore, plan: CollectionPlan, data: bytes) -> None:
    """Refuse a plan of another identity; write again what is torn of the preparation."""
    theirs, ours = _flat(plan_identity(data)), _flat(json.loads(canonical_json(dict(plan.identity))))
    if different := sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        shown = ", ".join(f"{name} {theirs.get(name)!r} there, {ours.get(name)!r} asked for" for name in different)
        raise OtherContent(f"{objects.url} holds other trajectories: {shown}")
    if plan_dataset_id(data) != plan.dataset_id:
        raise OtherContent(f"{objects.url} holds other trajectories: its settings agree, its plan does not")
    torn = [key for key, expected in listed_files(data).items() if not _is(objects, key, expected)]
    files = prepared_files(plan, {"conditional_create": objects.creates_exclusively()}) if torn else {}
    for key in torn:
        if ListedFile.of(files[key]) != listed_files(data)[key]:
            raise TornFile(f"{objects.url}/{key}: damaged, and this version would write it differently")
        objects.put(key, files[key])


def _is(objects: ObjectStore, key: str, expected: ListedFile) -> bool:
    try:
        return ListedFile.of(objects.read(key)) == expected
    except FileNotFoundError:
        return False


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        flat |= _flat(entry, f"{prefix}{name}.") if isinstance(entry, dict) else {f"{prefix}{name}": entry}
    return flat
