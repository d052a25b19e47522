"""Writing one unit: shards are streamed pair by pair, published whole, then vouched for by the unit's marker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from agd_core.records import PlannedTrajectory
from storage.markers import (
    CommittedShard,
    WrittenShard,
    marker_device,
    marker_key,
    read_marker,
    shard_key,
    write_marker,
)
from storage.objects import ObjectStore, StagedObject
from storage.pairs import as_floats, check_pair, checksums, pair_magnitudes, shard_content
from storage.sealed_parquet import TornFile
from storage.shard_check import whole_shard
from storage.shards import TornShard, crc_bytes

if TYPE_CHECKING:
    from storage.zarr_store import ZarrTrajectoryStore


class ZarrUnitWriter:
    """A `UnitWriter` of a `ZarrTrajectoryStore`; finished shards that are there are adopted, not written again."""

    def __init__(self, store: ZarrTrajectoryStore, unit: int) -> None:
        self._store, self._unit = store, unit
        self._planned = store.plan.unit(unit)
        self._started_at, self._device = datetime.now(UTC), store.device
        self._stack = ExitStack()
        self._shards: dict[int, _OpenShard] = {}
        vouched = {shard.number: shard.content for shard in self._found_marker()}
        adopted = ((shard, adopt(store, shard, vouched.get(shard))) for shard in store.plan.unit_shards(unit))
        self._finished = {shard: committed for shard, committed in adopted if committed}
        self._adopted = set(self._finished)

    @property
    def wanted(self) -> Sequence[PlannedTrajectory]:
        """Trajectories of the unit that are still to be computed."""
        per_shard = self._store.plan.shard_trajectories
        return [trajectory for trajectory in self._planned if trajectory.index // per_shard not in self._finished]

    def take(self, source: ObjectStore) -> None:
        """Bring over what is wanted of this unit from a store that has committed it; a damaged shard stays wanted.

        Raises:
            FileNotFoundError, TornFile: the unit is not committed there, or not any more.
        """
        store, marker = self._store, source.read(marker_key(self._unit))
        theirs = read_marker(marker, store.plan, self._unit)
        self._device = marker_device(marker)
        for shard in [shard for shard in theirs if shard.number not in self._finished]:
            brought = store.objects.take(shard.key, source)
            if found := adopt(store, shard.number, shard.content if brought else None):
                self._finished[shard.number] = found
                self._adopted.add(shard.number)

    def put(self, trajectory: int, slot: int, pair: np.ndarray) -> None:
        """Add one pair; its shard is published when this was the last one of it. A pair that is not wanted is ignored.

        Raises:
            ValueError: not of this unit, already there, of another shape or type, or not finite.
        """
        plan, planned = self._store.plan, self._planned
        if not (planned[0].index <= trajectory <= planned[-1].index and 0 <= slot < plan.stored_steps):
            raise ValueError(f"trajectory {trajectory}, slot {slot} is not of unit {self._unit}")
        check_pair(pair, plan)
        shard = trajectory // plan.shard_trajectories
        if shard in self._adopted:
            return
        if shard in self._finished:
            raise ValueError(f"trajectory {trajectory}, slot {slot} is there already")
        if shard not in self._shards:
            self._shards[shard] = _OpenShard(self._store, shard, self._stack)
        if self._shards[shard].put(trajectory % plan.shard_trajectories, slot, pair):
            self._finished[shard] = self._shards.pop(shard).publish()

    def commit(self) -> None:
        """Write the marker.

        Raises:
            ValueError: pairs are missing.
        """
        shards = self._store.plan.unit_shards(self._unit)
        if missing := [shard for shard in shards if shard not in self._finished]:
            raise ValueError(f"unit {self._unit} is not complete: shard {missing[0]} lacks pairs")
        finished = [self._finished[shard] for shard in shards]
        store, key = self._store, marker_key(self._unit)
        marker = write_marker(store.plan, self._unit, finished, self._started_at, self._device)
        if not store.objects.create(key, marker) and not self._same_marker(finished):
            store.objects.put(key, marker)

    def _same_marker(self, finished: list[WrittenShard]) -> bool:
        """Whether another writer committed the same content before us."""
        return [shard.content for shard in self._found_marker()] == [written.shard.content for written in finished]

    def _found_marker(self) -> list[CommittedShard]:
        """What the unit's marker vouches for; nothing if there is none, or a damaged one."""
        try:
            return read_marker(self._store.objects.read(marker_key(self._unit)), self._store.plan, self._unit)
        except (TornFile, FileNotFoundError):
            return []

    def __enter__(self) -> ZarrUnitWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _OpenShard:
    """One shard that is being written; every pair goes to its own place."""

    def __init__(self, store: ZarrTrajectoryStore, number: int, stack: ExitStack) -> None:
        self._store, self._number, self._plan = store, number, store.plan
        self._rows = self._plan.shard_size(number)
        self._chunks = self._rows * store.chunks_per_trajectory
        self._closing = stack.enter_context(ExitStack())
        self._staged: StagedObject = self._closing.enter_context(
            store.objects.stage(shard_key(number), store.layout.size(self._chunks))
        )
        self._written = np.zeros((self._rows, self._plan.stored_steps), dtype=bool)
        self._sums = np.zeros((self._rows, self._plan.stored_steps), dtype=np.uint32)
        self._absmax = np.zeros((self._rows, 2), dtype=np.uint32)
        self._pending: dict[int, np.ndarray] = {}
        self._left = self._written.size

    def put(self, row: int, slot: int, pair: np.ndarray) -> bool:
        """Place one pair; True when the shard is complete."""
        trajectory = self._number * self._plan.shard_trajectories + row
        if self._written[row, slot]:
            raise ValueError(f"trajectory {trajectory}, slot {slot} is there already")
        pair = np.ascontiguousarray(pair)
        np.maximum(self._absmax[row], pair_magnitudes(pair, self._plan, trajectory), out=self._absmax[row])
        chunk, place = divmod(slot, self._store.steps_per_chunk)
        number = row * self._store.chunks_per_trajectory + chunk
        self._sums[row, slot], self._written[row, slot] = checksums(pair[np.newaxis])[0], True
        self._left -= 1
        if self._store.steps_per_chunk == 1:
            self._write_chunk(number, pair)
        else:
            self._add_to_chunk(number, place, pair, first=slot - place)
        return self._left == 0

    def publish(self) -> WrittenShard:
        """Make the shard visible; one that is there already is kept if it is whole, else replaced."""
        store, key = self._store, shard_key(self._number)
        tail = store.layout.tail(self._chunks, self._plan.unit_ids[self._plan.unit_of(self._number)], self._number)
        with self._closing:
            self._staged.write(self._chunks * store.layout.stride, tail)
            crc32c = self._staged.checksum()
            while not self._staged.publish():
                if present := adopt(store, self._number):
                    return present
        absmax = tuple(as_floats(row, self._plan.dtype) for row in self._absmax)
        size, content = store.layout.size(self._chunks), shard_content(self._sums)
        return WrittenShard(CommittedShard(self._number, key, size, crc32c, content, "new"), absmax)

    def _add_to_chunk(self, number: int, place: int, pair: np.ndarray, first: int) -> None:
        steps = self._store.steps_per_chunk
        chunk = self._pending.setdefault(number, np.empty((steps, *pair.shape), pair.dtype))
        chunk[place] = pair
        row = number // self._store.chunks_per_trajectory
        if self._written[row, first : first + steps].all():
            self._write_chunk(number, self._pending.pop(number))

    def _write_chunk(self, number: int, chunk: np.ndarray) -> None:
        data = chunk.reshape(-1).view(np.uint8)
        self._staged.write(number * self._store.layout.stride, data, crc_bytes(data))


def adopt(store: ZarrTrajectoryStore, number: int, vouched: str | None = None) -> WrittenShard | None:
    """The finished shard that is there, left by somebody or brought over, if all of it is proved; else it is deleted.

    Args:
        store: where it is.
        number: of the shard.
        vouched: its content, if a marker says what it must be.
    """
    try:
        written = whole_shard(store, number)
    except FileNotFoundError:
        return None
    except TornShard:
        written = None
    if written and vouched in (None, written.shard.content):
        return written
    store.objects.delete(shard_key(number))
    return None
