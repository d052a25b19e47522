"""The trajectory store: one sharded Zarr v3 array, an immutable plan, one commit marker per work unit.

    <root>/plan.parquet, zarr.json, cond/, schedule/    prepared before any unit, see `preparation`
    <root>/latents/c.<shard>.0.0...                     a shard of whole trajectories, see `layout`
    <root>/index/u-<unit>.parquet                       marker of a committed unit, written last, see `markers`

A trajectory exists if and only if its unit's marker does. Everything that exists is derivable from plan and markers;
what a killed writer left finished but unmarked is verified and adopted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

import numpy as np

from agd_core.basics.errors import InputError
from agd_core.data.records import CARRIERS, CollectionPlan, StepBatch, UnitWriter, step_batch
from storage.errors import Damaged
from storage.objects import ByteRange, ObjectStore
from storage.trajectories.layout import StoreLayout
from storage.trajectories.markers import CommittedShard, marker_key, read_marker
from storage.trajectories.pairs import content_digest, require_pairs
from storage.trajectories.preparation import prepare, prepared_plan
from storage.trajectories.shard_check import whole_shard
from storage.trajectories.shards import is_whole
from storage.trajectories.unit_writer import ZarrUnitWriter


class ZarrTrajectoryStore:
    """A `TrajectoryStore` on a local folder or an object store.

    Args:
        objects: where the bytes are.
        plan: what is stored there.
        device: what computes new units, in words, for their markers.
    """

    def __init__(self, objects: ObjectStore, plan: CollectionPlan, device: str = "") -> None:
        self.objects, self.plan, self.device = objects, plan, device
        self.layout = StoreLayout(plan)
        self._offsets: dict[int, np.ndarray] = {}

    @classmethod
    def prepare(cls, objects: ObjectStore, plan: CollectionPlan, device: str = "") -> ZarrTrajectoryStore:
        """Create the store, or take up one of the same plan; what is torn of its preparation is written again.

        Raises:
            OtherContent: the place holds a store of another plan; the message names the settings that differ.
        """
        prepare(objects, plan)
        objects.remove_abandoned()
        return cls(objects, plan, device)

    @classmethod
    def open(cls, objects: ObjectStore) -> ZarrTrajectoryStore:
        """A store that exists.

        Raises:
            FileNotFoundError: no plan there.
            Damaged: the plan or what it vouches for is damaged.
            OtherContent: another version wrote it.
        """
        return cls(objects, prepared_plan(objects))

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
        except InputError as error:
            return [f"{self.objects.url}/{key}: marker {error}"]
        return [problem for shard in shards if (problem := self.shard_problem(shard, deep))]

    def shard_problem(self, shard: CommittedShard, deep: bool = True) -> str | None:
        """Why a shard is not what its marker says, None if it is."""
        if problem := self.objects.size_problem(shard.key, shard.size):
            return problem
        try:
            self._chunk_offsets(shard)
        except Damaged as error:
            return f"{self.objects.url}/{shard.key}: {error}"
        return self._deep_problem(shard) if deep else None

    def _deep_problem(self, shard: CommittedShard) -> str | None:
        where = f"{self.objects.url}/{shard.key}"
        try:
            found = whole_shard(self.objects, self.layout, shard.number).shard
        except Damaged as error:
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
            with ZarrUnitWriter(self.objects, self.layout, unit, self.device) as writer:
                yield writer
        finally:
            for shard in self.plan.unit_shards(unit):
                self._offsets.pop(shard, None)

    def read(self, pairs: np.ndarray) -> StepBatch:
        """The pairs of these indices; crc32c is checked on every chunk read.

        Raises:
            IndexError: the plan has no such pair.
            Damaged: damaged bytes, or a unit that is not committed; names the shard.
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
        except (FileNotFoundError, Damaged) as error:
            raise Damaged(f"{self.objects.url}: unit {unit} is not committed") from error

    def _gather(self, trajectories: np.ndarray, slots: np.ndarray) -> np.ndarray:
        per_shard = self.plan.shard_trajectories
        shards = trajectories // per_shard
        chunks = (trajectories % per_shard) * self.layout.chunks_per_trajectory + slots // self.layout.steps_per_chunk
        rows = np.empty((len(shards), self.layout.stride), dtype=np.uint8)
        ranges = [self._range(s, c) for s, c in zip(shards.tolist(), chunks.tolist(), strict=True)]
        self._read_checked(sorted(zip(ranges, rows, strict=True), key=itemgetter(0)))
        return self._pairs(rows, slots % self.layout.steps_per_chunk)

    def _read_checked(self, wanted: list[tuple[ByteRange, np.ndarray]]) -> None:
        """Read every range into its row; a row is checked at once, while the processor's cache still has it."""
        ranges, rows = [part for part, _ in wanted], [row for _, row in wanted]
        try:
            torn = next((i for i in self.objects.gather(ranges, rows) if not is_whole(rows[i])), None)
        except (FileNotFoundError, EOFError) as error:
            raise Damaged(f"{self.objects.url}: {error}") from error
        if torn is not None:
            raise Damaged(f"{self.objects.url}/{ranges[torn].key}: checksum differs at byte {ranges[torn].start}")

    def _pairs(self, rows: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """Chunks as they were read to pairs; a view where a chunk is one step."""
        stored = rows[:, : self.layout.chunk_bytes].view(CARRIERS[self.plan.dtype])
        chunks = stored.reshape(len(rows), self.layout.steps_per_chunk, *self.plan.pair_shape)
        return chunks[:, 0] if self.layout.steps_per_chunk == 1 else chunks[np.arange(len(rows)), slots]

    def _range(self, shard: int, chunk: int) -> ByteRange:
        offsets = self._offsets.get(shard)
        if offsets is None:
            offsets = self._offsets[shard] = self._committed_offsets(shard)
        return ByteRange(self.layout.key(shard), int(offsets[chunk]), self.layout.stride)

    def _committed_offsets(self, number: int) -> np.ndarray:
        shard = next(shard for shard in self._marked(self.plan.unit_of(number)) if shard.number == number)
        try:
            return self._chunk_offsets(shard)
        except (FileNotFoundError, Damaged) as error:
            raise Damaged(f"{self.objects.url}/{shard.key}: {error}") from error

    def _chunk_offsets(self, shard: CommittedShard) -> np.ndarray:
        start = max(0, shard.size - self.layout.tail_bytes)
        tail = self.objects.read(shard.key, start, self.layout.tail_bytes)
        self.layout.check_label(tail, shard.number)
        offsets = self.layout.chunk_offsets(tail)
        chunks = offsets[: self.layout.chunks(shard.number)]
        if (chunks < 0).any():
            raise Damaged("lacks chunks")
        if (offsets > start - self.layout.stride).any():
            raise Damaged("names chunks outside of it")
        return offsets

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_offsets": {}}
