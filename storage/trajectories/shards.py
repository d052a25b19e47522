"""The checksum of a store's chunks, tables and indexes: crc32c, four bytes behind what it sums."""

import google_crc32c
import numpy as np

CRC_BYTES = 4


def crc_bytes(data: bytes | np.ndarray) -> bytes:
    """crc32c as it is stored: 4 bytes, little endian."""
    return int(google_crc32c.value(data)).to_bytes(CRC_BYTES, "little")


def is_whole(row: np.ndarray) -> bool:
    """Whether a chunk and its checksum, uint8 `[chunk_bytes + 4]`, belong together."""
    return int(google_crc32c.value(row[:-CRC_BYTES])) == int.from_bytes(row[-CRC_BYTES:].tobytes(), "little")
