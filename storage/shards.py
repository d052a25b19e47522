"""One Zarr v3 shard as bytes: chunks in C order, our label, then the index that any Zarr reader uses.

    chunk 0 | crc32c | chunk 1 | crc32c | ... | label (48 bytes) | (offset, length) of every chunk | crc32c of the index

The format is the `sharding_indexed` codec with the index at the end and inner codecs `bytes` (little endian) and
`crc32c` (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html). The specification lets a
shard hold bytes that no index entry names; the label lies there and says which shard this is, and of which unit of
work (`CollectionPlan.unit_ids`). A full unit has the same id, and so the same bytes, in a collection of any length.
Every chunk has its place before anything is written, so equal content gives equal bytes in whatever order it comes.
"""

import struct
from dataclasses import dataclass

import google_crc32c
import numpy as np

CRC_BYTES = 4
_LABEL = struct.Struct("<4s32sQI")
_MAGIC = b"AGDt"
_ENTRY_BYTES = 16
_MISSING = np.uint64(2**64 - 1)


class TornShard(ValueError):
    """A shard whose bytes are not what they should be."""


@dataclass(frozen=True)
class ShardLayout:
    """Where everything lies in a shard."""

    grid: int
    """Chunks in a full shard: the entries of the index."""
    chunk_bytes: int
    """Bytes of one chunk without its checksum."""

    @property
    def stride(self) -> int:
        """Bytes of one chunk with its checksum."""
        return self.chunk_bytes + CRC_BYTES

    @property
    def index_bytes(self) -> int:
        """Bytes of the index and its checksum."""
        return self.grid * _ENTRY_BYTES + CRC_BYTES

    @property
    def tail_bytes(self) -> int:
        """Bytes of label and index together."""
        return _LABEL.size + self.index_bytes

    def size(self, chunks: int) -> int:
        """Bytes of a shard that holds its first `chunks` chunks."""
        return chunks * self.stride + self.tail_bytes

    def tail(self, chunks: int, unit_id: str, number: int) -> bytes:
        """Label and index of a shard that holds its first `chunks` chunks."""
        head = struct.pack("<4s32sQ", _MAGIC, bytes.fromhex(unit_id), number)
        index = np.full((self.grid, 2), _MISSING, dtype="<u8")
        index[:chunks, 0] = np.arange(chunks, dtype=np.uint64) * np.uint64(self.stride)
        index[:chunks, 1] = self.stride
        body = index.tobytes()
        return head + crc_bytes(head) + body + crc_bytes(body)

    def check_label(self, tail: bytes, unit_id: str, number: int) -> None:
        """Refuse the shard of another unit or place.

        Raises:
            TornShard: what is wrong.
        """
        if len(tail) < self.tail_bytes:
            raise TornShard("is cut short")
        head, crc = tail[: _LABEL.size - CRC_BYTES], tail[_LABEL.size - CRC_BYTES : _LABEL.size]
        if crc_bytes(head) != crc or head[:4] != _MAGIC:
            raise TornShard("has no readable label")
        if head != struct.pack("<4s32sQ", _MAGIC, bytes.fromhex(unit_id), number):
            raise TornShard("belongs to another place or unit")

    def chunk_offsets(self, tail: bytes) -> np.ndarray:
        """First byte of every chunk, int64 `[grid]`, -1 where there is none; read from the index, whoever wrote it.

        Args:
            tail: the end of the shard, at least the index.

        Raises:
            TornShard: the index fails its checksum or names chunks of another size.
        """
        index = tail[-self.index_bytes :]
        if len(index) < self.index_bytes or crc_bytes(index[:-CRC_BYTES]) != index[-CRC_BYTES:]:
            raise TornShard("has a torn index")
        entries = np.frombuffer(index[:-CRC_BYTES], dtype="<u8").reshape(self.grid, 2)
        present = entries[:, 0] != _MISSING
        if (entries[present, 1] != self.stride).any():
            raise TornShard("holds chunks of another size")
        offsets: np.ndarray = np.where(present, entries[:, 0], 0).astype(np.int64)
        return np.where(present, offsets, -1)


def crc_bytes(data: bytes | np.ndarray) -> bytes:
    """crc32c as it is stored: 4 bytes, little endian."""
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def is_whole(row: np.ndarray) -> bool:
    """Whether a chunk and its checksum, uint8 `[chunk_bytes + 4]`, belong together."""
    return int(google_crc32c.value(row[:-CRC_BYTES])) == int.from_bytes(row[-CRC_BYTES:].tobytes(), "little")
