"""Bytes in a dictionary: an object store for tests, and the staging buffer of the remote ones."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import google_crc32c
import numpy as np

from storage.objects.base import ByteRange, ObjectStore, StagedObject


class MemoryObjects(ObjectStore):
    """Objects of this process."""

    def __init__(self) -> None:
        self.url = "memory"
        self.objects: dict[str, bytes] = {}

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        if key not in self.objects:
            raise FileNotFoundError(key)
        return self.objects[key][start : None if length is None else start + length]

    def gather(self, ranges: Sequence[ByteRange], rows: Sequence[np.ndarray]) -> Iterator[int]:
        for number, (part, row) in enumerate(zip(ranges, rows, strict=True)):
            data = self.read(part.key, part.start, part.length)
            if len(data) != part.length:
                raise EOFError(f"{part.key} ends before byte {part.start + part.length}")
            row[:] = np.frombuffer(data, np.uint8)
            yield number

    def size(self, key: str) -> int | None:
        return len(self.objects[key]) if key in self.objects else None

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(f"{prefix}/"))

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    @contextmanager
    def stage(self, key: str, size: int) -> Iterator[StagedObject]:
        yield _StagedBytes(self.objects, key, size)

    def remove_abandoned(self) -> list[str]:
        return []


class StagedBuffer(StagedObject):
    """One object in memory until it is published."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)

    def write(self, offset: int, *parts: bytes | np.ndarray) -> None:
        for part in parts:
            self.data[offset : offset + len(part)] = part if isinstance(part, bytes) else part.data
            offset += len(part)

    def checksum(self) -> int:
        return int(google_crc32c.value(np.frombuffer(self.data, np.uint8)))


class _StagedBytes(StagedBuffer):
    def __init__(self, objects: dict[str, bytes], key: str, size: int) -> None:
        super().__init__(size)
        self._objects, self._key = objects, key

    def publish(self) -> bool:
        return self._objects.setdefault(self._key, stored := bytes(self.data)) is stored
