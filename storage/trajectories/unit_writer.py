"""Writing one unit: shards are streamed pair by pair, published whole, then vouched for by the unit's marker."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime

import numpy as np

from agd_core.data.records import PlannedTrajectory
from storage.errors import Damaged
from storage.objects import ObjectStore, StagedObject
from storage.trajectories.layout import StoreLayout
from storage.trajectories.markers import (
    CommittedShard,
    WrittenShard,
    marker_device,
    marker_key,
    read_marker,
    write_marker,
)
from storage.trajectories.pairs import as_floats, check_pair, checksums, pair_magnitudes, shard_content
from storage.trajectories.shard_check import whole_shard
from storage.trajectories.shards import crc_bytes


class ZarrUnitWriter:
    """A `UnitWriter` of a Zarr store; finished shards that are there are adopted, not written again.

    Args:
        objects: where the store is.
        layout: where everything lies in it.
        unit: number of the unit of work.
        device: what computes it, in words, for its marker.
    """

    def __init__(self, objects: ObjectStore, layout: StoreLayout, unit: int, device: str) -> None:
        self._objects, self._layout, self._plan = objects, layout, layout.plan
        self._unit, self._planned = unit, self._plan.unit(unit)
        self._started_at, self._device = datetime.now(UTC), device
        self._stack = ExitStack()
        self._shards: dict[int, _OpenShard] = {}
        vouched = {shard.number: shard.content for shard in self._found_marker()}
        adopted = ((shard, adopt(objects, layout, shard, vouched.get(shard))) for shard in self._plan.unit_shards(unit))
        self._finished = {shard: committed for shard, committed in adopted if committed}
        self._adopted = set(self._finished)

    @property
    def wanted(self) -> Sequence[PlannedTrajectory]:
        """Trajectories of the unit that are still to be computed."""
        per_shard = self._plan.shard_trajectories
        return [trajectory for trajectory in self._planned if trajectory.index // per_shard not in self._finished]

    def take(self, source: ObjectStore) -> None:
        """Bring over what is wanted of this unit from a store that has committed it; a damaged shard stays wanted.

        Raises:
            FileNotFoundError, Damaged: the unit is not committed there, or not any more.
        """
        marker = source.read(marker_key(self._unit))
        theirs = read_marker(marker, self._plan, self._unit)
        self._device = marker_device(marker)
        for shard in [shard for shard in theirs if shard.number not in self._finished]:
            brought = self._objects.take(shard.key, source)
            if found := adopt(self._objects, self._layout, shard.number, shard.content if brought else None):
                self._finished[shard.number] = found
                self._adopted.add(shard.number)

    def put(self, trajectory: int, slot: int, pair: np.ndarray) -> None:
        """Add one pair; its shard is published when this was the last one of it. A pair that is not wanted is ignored.

        Raises:
            ValueError: not of this unit, already there, of another shape or type, or not finite.
        """
        plan, planned = self._plan, self._planned
        if not (planned[0].index <= trajectory <= planned[-1].index and 0 <= slot < plan.stored_steps):
            raise ValueError(f"trajectory {trajectory}, slot {slot} is not of unit {self._unit}")
        check_pair(pair, plan)
        shard = trajectory // plan.shard_trajectories
        if shard in self._adopted:
            return
        if shard in self._finished:
            raise ValueError(f"trajectory {trajectory}, slot {slot} is there already")
        if shard not in self._shards:
            self._shards[shard] = _OpenShard(self._objects, self._layout, shard, self._stack)
        if self._shards[shard].put(trajectory % plan.shard_trajectories, slot, pair):
            self._finished[shard] = self._shards.pop(shard).publish()

    def commit(self) -> None:
        """Write the marker.

        Raises:
            ValueError: pairs are missing.
        """
        shards = self._plan.unit_shards(self._unit)
        if missing := [shard for shard in shards if shard not in self._finished]:
            raise ValueError(f"unit {self._unit} is not complete: shard {missing[0]} lacks pairs")
        finished = [self._finished[shard] for shard in shards]
        key = marker_key(self._unit)
        marker = write_marker(self._plan, self._unit, finished, self._started_at, self._device)
        if not self._objects.create(key, marker) and not self._same_marker(finished):
            self._objects.put(key, marker)

    def _same_marker(self, finished: list[WrittenShard]) -> bool:
        """Whether another writer committed the same content before us."""
        return [shard.content for shard in self._found_marker()] == [written.shard.content for written in finished]

    def _found_marker(self) -> list[CommittedShard]:
        """What the unit's marker vouches for; nothing if there is none, or a damaged one."""
        try:
            return read_marker(self._objects.read(marker_key(self._unit)), self._plan, self._unit)
        except (Damaged, FileNotFoundError):
            return []

    def __enter__(self) -> ZarrUnitWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class _OpenShard:
    """One shard that is being written; every pair goes to its own place."""

    def __init__(self, objects: ObjectStore, layout: StoreLayout, number: int, stack: ExitStack) -> None:
        self._objects, self._layout, self._plan, self._number = objects, layout, layout.plan, number
        self._closing = stack.enter_context(ExitStack())
        self._staged: StagedObject = self._closing.enter_context(objects.stage(layout.key(number), layout.size(number)))
        rows = self._plan.shard_size(number)
        self._written = np.zeros((rows, self._plan.stored_steps), dtype=bool)
        self._sums = np.zeros((rows, self._plan.stored_steps), dtype=np.uint32)
        self._absmax = np.zeros((rows, 2), dtype=np.uint32)
        self._pending: dict[int, np.ndarray] = {}
        self._left = self._written.size

    def put(self, row: int, slot: int, pair: np.ndarray) -> bool:
        """Place one pair; True when the shard is complete."""
        trajectory = self._number * self._plan.shard_trajectories + row
        if self._written[row, slot]:
            raise ValueError(f"trajectory {trajectory}, slot {slot} is there already")
        pair = np.ascontiguousarray(pair)
        np.maximum(self._absmax[row], pair_magnitudes(pair, self._plan, trajectory), out=self._absmax[row])
        chunk, place = divmod(slot, self._layout.steps_per_chunk)
        number = row * self._layout.chunks_per_trajectory + chunk
        self._sums[row, slot], self._written[row, slot] = checksums(pair[np.newaxis])[0], True
        self._left -= 1
        if self._layout.steps_per_chunk == 1:
            self._write_chunk(number, pair)
        else:
            self._add_to_chunk(number, place, pair, first=slot - place)
        return self._left == 0

    def publish(self) -> WrittenShard:
        """Make the shard visible; one that is there already is kept if it is whole, else replaced."""
        layout, number = self._layout, self._number
        with self._closing:
            self._staged.write(layout.chunks(number) * layout.stride, layout.tail(number))
            crc32c = self._staged.checksum()
            while not self._staged.publish():
                if present := adopt(self._objects, layout, number):
                    return present
        absmax = tuple(as_floats(row, self._plan.dtype) for row in self._absmax)
        content = shard_content(self._sums)
        return WrittenShard(
            CommittedShard(number, layout.key(number), layout.size(number), crc32c, content, "new"), absmax
        )

    def _add_to_chunk(self, number: int, place: int, pair: np.ndarray, first: int) -> None:
        steps = self._layout.steps_per_chunk
        chunk = self._pending.setdefault(number, np.empty((steps, *pair.shape), pair.dtype))
        chunk[place] = pair
        row = number // self._layout.chunks_per_trajectory
        if self._written[row, first : first + steps].all():
            self._write_chunk(number, self._pending.pop(number))

    def _write_chunk(self, number: int, chunk: np.ndarray) -> None:
        data = chunk.reshape(-1).view(np.uint8)
        self._staged.write(number * self._layout.stride, data, crc_bytes(data))


def adopt(objects: ObjectStore, layout: StoreLayout, number: int, vouched: str | None = None) -> WrittenShard | None:
    """The finished shard that is there, left by somebody or brought over, if all of it is proved; else it is deleted.

    Args:
        objects: where it is.
        layout: of its store.
        number: of the shard.
        vouched: its content, if a marker says what it must be.
    """
    try:
        written = whole_shard(objects, layout, number)
    except FileNotFoundError:
        return None
    except Damaged:
        written = None
    if written and vouched in (None, written.shard.content):
        return written
    objects.delete(layout.key(number))
    return None
