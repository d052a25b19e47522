"""Reading a whole shard front to back and proving every byte of it, a few trajectories in memory at a time."""

from collections.abc import Iterator

import google_crc32c
import numpy as np

from agd_core.data.records import CARRIERS, CollectionPlan
from storage.errors import Damaged
from storage.objects import ObjectStore
from storage.trajectories.layout import StoreLayout
from storage.trajectories.markers import CommittedShard, WrittenShard
from storage.trajectories.pairs import NotFinite, as_floats, checksums, magnitudes, shard_content
from storage.trajectories.shards import is_whole

_BLOCK_BYTES = 4 << 20


def whole_shard(objects: ObjectStore, layout: StoreLayout, number: int) -> WrittenShard:
    """What a finished shard holds: every chunk, the label and the index are as our writer leaves them.

    Raises:
        FileNotFoundError: there is none.
        Damaged: what is wrong with it.
    """
    key = layout.key(number)
    size = objects.size(key)
    if size is None:
        raise FileNotFoundError(f"{objects.url}/{key}")
    if size != layout.size(number):
        raise Damaged("has another size")
    crc32c, sums, absmax = 0, [], []
    for block in _blocks(objects, layout, number):
        if not all(map(is_whole, block.reshape(-1, layout.stride))):
            raise Damaged("has a torn chunk")
        crc32c = google_crc32c.extend(crc32c, block.tobytes())
        for pairs in _pairs(layout, block):
            sums += checksums(pairs)
            absmax.append(_absmax(pairs, layout.plan))
    tail = objects.read(key, layout.chunks(number) * layout.stride)
    if tail != layout.tail(number):
        raise Damaged("has another label or index")
    crc32c = google_crc32c.extend(crc32c, tail)
    return WrittenShard(CommittedShard(number, key, size, crc32c, shard_content(sums), "adopted"), tuple(absmax))


def _blocks(objects: ObjectStore, layout: StoreLayout, number: int) -> Iterator[np.ndarray]:
    """The bytes of a few trajectories at a time, uint8 `[trajectories, chunks, stride]`."""
    row = layout.chunks_per_trajectory * layout.stride
    together = max(1, _BLOCK_BYTES // row)
    rows = layout.plan.shard_size(number)
    for first in range(0, rows, together):
        count = min(together, rows - first)
        data = objects.read(layout.key(number), first * row, count * row)
        if len(data) != count * row:
            raise Damaged("is cut short")
        yield np.frombuffer(data, dtype=np.uint8).reshape(count, -1, layout.stride)


def _pairs(layout: StoreLayout, block: np.ndarray) -> Iterator[np.ndarray]:
    """The pairs of each trajectory of a block, `[stored_steps, *pair]`."""
    plan = layout.plan
    for row in block:
        values = np.ascontiguousarray(row[:, : layout.chunk_bytes]).reshape(-1).view(CARRIERS[plan.dtype])
        yield values.reshape(plan.stored_steps, *plan.pair_shape)


def _absmax(pairs: np.ndarray, plan: CollectionPlan) -> tuple[float, float]:
    try:
        return as_floats(magnitudes(pairs, plan), plan.dtype)
    except NotFinite as error:
        raise Damaged(str(error)) from error
