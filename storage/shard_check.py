"""Reading a whole shard front to back and proving every byte of it, a few trajectories in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np

from agd_core.records import CARRIERS
from storage.markers import CommittedShard, WrittenShard, shard_key
from storage.pairs import NotFinite, as_floats, checksums, magnitudes, shard_content
from storage.shards import TornShard, is_whole

if TYPE_CHECKING:
    from storage.zarr_store import ZarrTrajectoryStore

_BLOCK_BYTES = 4 << 20


def whole_shard(store: ZarrTrajectoryStore, number: int) -> WrittenShard:
    """What a finished shard holds: every chunk, the label and the index are as our writer leaves them.

    Raises:
        FileNotFoundError: there is none.
        TornShard: what is wrong with it.
    """
    plan, layout, key = store.plan, store.layout, shard_key(number)
    chunks = plan.shard_size(number) * store.chunks_per_trajectory
    size = store.objects.size(key)
    if size is None:
        raise FileNotFoundError(f"{store.objects.url}/{key}")
    if size != layout.size(chunks):
        raise TornShard("has another size")
    crc32c, sums, absmax = 0, [], []
    for block in _blocks(store, number):
        if not all(map(is_whole, block.reshape(-1, layout.stride))):
            raise TornShard("has a torn chunk")
        crc32c = google_crc32c.extend(crc32c, block.tobytes())
        for pairs in _pairs(store, block):
            sums += checksums(pairs)
            absmax.append(_absmax(store, pairs))
    tail = store.objects.read(key, chunks * layout.stride)
    if tail != layout.tail(chunks, plan.unit_ids[plan.unit_of(number)], number):
        raise TornShard("has another label or index")
    crc32c = google_crc32c.extend(crc32c, tail)
    return WrittenShard(CommittedShard(number, key, size, crc32c, shard_content(sums), "adopted"), tuple(absmax))


def _blocks(store: ZarrTrajectoryStore, number: int) -> Iterator[np.ndarray]:
    """The bytes of a few trajectories at a time, uint8 `[trajectories, chunks, stride]`."""
    per_row, stride = store.chunks_per_trajectory, store.layout.stride
    together = max(1, _BLOCK_BYTES // (per_row * stride))
    rows = store.plan.shard_size(number)
    for first in range(0, rows, together):
        count = min(together, rows - first)
        data = store.objects.read(shard_key(number), first * per_row * stride, count * per_row * stride)
        if len(data) != count * per_row * stride:
            raise TornShard("is cut short")
        yield np.frombuffer(data, dtype=np.uint8).reshape(count, per_row, stride)


def _pairs(store: ZarrTrajectoryStore, block: np.ndarray) -> Iterator[np.ndarray]:
    """The pairs of each trajectory of a block, `[stored_steps, K, C, H, W]`."""
    plan = store.plan
    for row in block:
        values = np.ascontiguousarray(row[:, : store.layout.chunk_bytes]).reshape(-1).view(CARRIERS[plan.dtype])
        yield values.reshape(plan.stored_steps, *plan.pair_shape)


def _absmax(store: ZarrTrajectoryStore, pairs: np.ndarray) -> tuple[float, float]:
    try:
        return as_floats(magnitudes(pairs, store.plan.dtype), store.plan.dtype)
    except NotFinite as error:
        raise TornShard(str(error)) from error
