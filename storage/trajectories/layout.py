"""Where everything lies in a store: a shard is chunks in C order, our label, then the index that any Zarr reader uses.

    chunk 0 | crc32c | chunk 1 | crc32c | ... | label (48 bytes) | (offset, length) of every chunk | crc32c of the index

The format is the `sharding_indexed` codec with the index at the end and inner codecs `bytes` (little endian) and
`crc32c` (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html). The specification lets a
shard hold bytes that no index entry names; the label lies there and says which shard this is, and of which unit of
work (`CollectionPlan.unit_ids`). A full unit has the same id, and so the same bytes, in a collection of any length.
Every chunk has its place before anything is written, so equal content gives equal bytes in whatever order it comes.
"""

import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from agd_core.data.records import CollectionPlan
from storage.errors import Damaged
from storage.trajectories.shards import CRC_BYTES, crc_bytes

_PAGE_BYTES = 4096
_CHUNK_LIMIT_BYTES = 16384
_LABEL = struct.Struct("<4s32sQI")
_MAGIC = b"AGDt"
_ENTRY_BYTES = 16
_MISSING = np.uint64(2**64 - 1)


@dataclass(frozen=True)
class StoreLayout:
    """Where everything of a plan lies in its shards."""

    plan: CollectionPlan

    @cached_property
    def steps_per_chunk(self) -> int:
        """How many steps share an inner chunk: one, or for tiny latents the fewest that fill a 4 KiB page.

        A disk hands out whole pages anyway, and a chunk costs 20 bytes of checksum and index whatever its size. Only
        divisors of the stored steps are taken, so no chunk is padded.
        """
        stored, pair_bytes = self.plan.stored_steps, self.plan.pair_bytes
        for steps in range(1, stored + 1):
            size = steps * pair_bytes
            if stored % steps == 0 and size >= _PAGE_BYTES:
                return steps if size <= _CHUNK_LIMIT_BYTES else 1
        return stored if stored * pair_bytes < _PAGE_BYTES else 1

    @cached_property
    def chunks_per_trajectory(self) -> int:
        """Chunks of one trajectory."""
        return self.plan.stored_steps // self.steps_per_chunk

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk without its checksum."""
        return self.steps_per_chunk * self.plan.pair_bytes

    @cached_property
    def stride(self) -> int:
        """Bytes of one chunk with its checksum."""
        return self.chunk_bytes + CRC_BYTES

    @cached_property
    def grid(self) -> int:
        """Chunks in a full shard: the entries of the index."""
        return self.plan.shard_trajectories * self.chunks_per_trajectory

    @property
    def index_bytes(self) -> int:
        """Bytes of the index and its checksum."""
        return self.grid * _ENTRY_BYTES + CRC_BYTES

    @property
    def tail_bytes(self) -> int:
        """Bytes of label and index together."""
        return _LABEL.size + self.index_bytes

    def key(self, shard: int) -> str:
        """Where a shard lies; the key that Zarr gives to it with `.` as separator."""
        return ".".join(["latents/c", str(shard), "0", *("0" for _ in self.plan.pair_shape)])

    def chunks(self, shard: int) -> int:
        """Chunks of a shard; the last one may have fewer."""
        return self.plan.shard_size(shard) * self.chunks_per_trajectory

    def size(self, shard: int) -> int:
        """Bytes of a shard."""
        return self.chunks(shard) * self.stride + self.tail_bytes

    def tail(self, shard: int) -> bytes:
        """Label and index of a shard."""
        head, chunks = self._label(shard), self.chunks(shard)
        index = np.full((self.grid, 2), _MISSING, dtype="<u8")
        index[:chunks, 0] = np.arange(chunks, dtype=np.uint64) * np.uint64(self.stride)
        index[:chunks, 1] = self.stride
        body = index.tobytes()
        return head + crc_bytes(head) + body + crc_bytes(body)

    def check_label(self, tail: bytes, shard: int) -> None:
        """Refuse the shard of another unit or place.

        Raises:
            Damaged: what is wrong.
        """
        if len(tail) < self.tail_bytes:
            raise Damaged("is cut short")
        head, crc = tail[: _LABEL.size - CRC_BYTES], tail[_LABEL.size - CRC_BYTES : _LABEL.size]
        if crc_bytes(head) != crc or head[:4] != _MAGIC:
            raise Damaged("has no readable label")
        if head != self._label(shard):
            raise Damaged("belongs to another place or unit")

    def chunk_offsets(self, tail: bytes) -> np.ndarray:
        """First byte of every chunk, int64 `[grid]`, -1 where there is none; read from the index, whoever wrote it.

        Args:
            tail: the end of the shard, at least the index.

        Raises:
            Damaged: the index fails its checksum or names chunks of another size.
        """
        index = tail[-self.index_bytes :]
        if len(index) < self.index_bytes or crc_bytes(index[:-CRC_BYTES]) != index[-CRC_BYTES:]:
            raise Damaged("has a torn index")
        entries = np.frombuffer(index[:-CRC_BYTES], dtype="<u8").reshape(self.grid, 2)
        present = entries[:, 0] != _MISSING
        if (entries[present, 1] != self.stride).any():
            raise Damaged("holds chunks of another size")
        offsets: np.ndarray = np.where(present, entries[:, 0], 0).astype(np.int64)
        return np.where(present, offsets, -1)

    def _label(self, shard: int) -> bytes:
        unit = self.plan.unit_ids[self.plan.unit_of(shard)]
        return struct.pack("<4s32sQ", _MAGIC, bytes.fromhex(unit), shard)
