"""One sample of a WebDataset tar as bytes: two members, padded so that every sample takes the same space.

    header | .lat.bin: little-endian [K, channels, height, width] | padding | header | .json, padded with spaces

Nothing depends on when, where or by whom it was written, so equal content gives equal bytes, and sample n of a tar
begins at byte n * size. The headers are POSIX ustar
(https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html, "ustar Interchange Format").
"""

import json

import google_crc32c
import numpy as np

from agd_core.data.records import CARRIERS, CollectionPlan

BLOCK_BYTES = 512
"""A tar consists of blocks of this size."""
END = bytes(2 * BLOCK_BYTES)
"""What ends a tar."""
LATENTS, DESCRIPTION = ".lat.bin", ".json"
"""Suffixes of the two members; what precedes them is the WebDataset key."""
_DESCRIPTION_BYTES = BLOCK_BYTES
_MODIFIED = 315532800
"""1980-01-01: some tools warn of older files."""
_NAME = slice(0, 100)
_CHECKSUM = slice(148, 156)


class TarRecords:
    """Makes and reads the samples of one plan."""

    def __init__(self, plan: CollectionPlan) -> None:
        self.plan = plan
        self._latents = slice(BLOCK_BYTES, BLOCK_BYTES + plan.pair_bytes)
        second_header = BLOCK_BYTES + -(-plan.pair_bytes // BLOCK_BYTES) * BLOCK_BYTES
        self._second_header = slice(second_header, second_header + BLOCK_BYTES)
        self._description = slice(self._second_header.stop, self._second_header.stop + _DESCRIPTION_BYTES)
        self.size: int = self._description.stop
        """Bytes of one sample."""
        self._headers = _blank_header(plan.pair_bytes), _blank_header(_DESCRIPTION_BYTES)
        self._timesteps = np.asarray(plan.timesteps, dtype=np.float32).tolist()

    def encode(self, pairs: np.ndarray, latents: np.ndarray) -> np.ndarray:
        """Samples, uint8 `[n, size]`, of these pairs (int64 `[n]`) and latents (`[n, K, C, H, W]`, carrier type)."""
        records = np.zeros((len(pairs), self.size), dtype=np.uint8)
        records[:, self._latents] = np.ascontiguousarray(latents).reshape(len(pairs), -1).view(np.uint8)
        for record, pair in zip(records, pairs.tolist(), strict=True):
            name = self._key(pair)
            record[:BLOCK_BYTES] = _bytes(_header(name + LATENTS, self._headers[0]))
            record[self._second_header] = _bytes(_header(name + DESCRIPTION, self._headers[1]))
            record[self._description] = _bytes(self._describe(pair, record[self._latents]))
        return records

    def torn(self, pairs: np.ndarray, records: np.ndarray) -> int | None:
        """The first sample that is not the one of its pair or fails its checksum, None if all are right.

        Args:
            pairs: int64 `[n]`, what the samples should be.
            records: uint8 `[n, size]`.
        """
        for number, (record, pair) in enumerate(zip(records, pairs.tolist(), strict=True)):
            if record[self._description].tobytes() != self._describe(pair, record[self._latents]):
                return number
        return None

    def latents(self, records: np.ndarray) -> np.ndarray:
        """A view `[n, K, C, H, W]` in the carrier type on samples, uint8 `[n, size]`."""
        stored = records[:, self._latents].view(CARRIERS[self.plan.dtype])
        return stored.reshape(len(records), *self.plan.pair_shape)

    def _key(self, pair: int) -> str:
        trajectory, slot = divmod(pair, self.plan.stored_steps)
        return f"{trajectory:06d}_{self.plan.trajectories[trajectory].steps[slot]:04d}"

    def _describe(self, pair: int, data: np.ndarray) -> bytes:
        number, slot = divmod(pair, self.plan.stored_steps)
        trajectory = self.plan.trajectories[number]
        step = trajectory.steps[slot]
        description = {
            "t": self._timesteps[step],
            "step": step,
            "trajectory": number,
            "slot": slot,
            **{name: float(column[number]) for name, column in self.plan.scalars.items()},
            "class_label": trajectory.class_label,
            **trajectory.rows,
            "crc32c": google_crc32c.value(data),
        }
        return json.dumps(description).encode().ljust(_DESCRIPTION_BYTES)


def _blank_header(size: int) -> bytes:
    """A member's header without name; its checksum counts as spaces."""
    permissions, owner, devices = b"0000644\0", 2 * b"0000000\0", 2 * b"0000000\0"
    numbers = permissions + owner + b"%011o\0%011o\0" % (size, _MODIFIED)
    kind = b"0" + bytes(100) + b"ustar\0" + b"00" + bytes(64)
    return (bytes(_NAME.stop) + numbers + b" " * 8 + kind + devices).ljust(BLOCK_BYTES, b"\0")


def _header(name: str, blank: bytes) -> bytes:
    filled = name.encode().ljust(_NAME.stop, b"\0") + blank[_NAME.stop :]
    return filled[: _CHECKSUM.start] + b"%06o\0 " % sum(filled) + filled[_CHECKSUM.stop :]


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)
