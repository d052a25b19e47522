"""What a store needs from the place that keeps its bytes: a local folder, memory, or an object store."""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable

_BLOCK_BYTES = 16 << 20
_SHOWN_LETTERS = 255


class ByteRange(NamedTuple):
    """A part of one object."""

    key: str
    start: int
    length: int


def require_plain(key: str, url: str) -> None:
    """Refuse a key that could mean something outside of the place: keys come out of files that anybody may have made.

    Raises:
        InputError: no relative path, "..", an empty part, or a control character.
    """
    if not key.isprintable() or not {"", ".", ".."}.isdisjoint(key.split("/")):
        shown = printable(key[:_SHOWN_LETTERS])
        raise InputError(f"{printable(url)} names an object {shown!r}; allowed are plain names below that place")


class StagedObject(ABC):
    """An object of known size that is being written; nobody else sees it before `publish`."""

    @abstractmethod
    def write(self, offset: int, *parts: bytes | np.ndarray) -> None:
        """Place these bytes (arrays: uint8, contiguous), one part after the other, at an offset."""

    @abstractmethod
    def checksum(self) -> int:
        """crc32c of all bytes written so far, gaps as zeros."""

    @abstractmethod
    def publish(self) -> bool:
        """Make the object durable and visible under its key, whole; False if the key exists already."""


class ObjectStore(ABC):
    """Keys to bytes; keys are relative paths with `/`. Objects appear whole or not at all.

    Every method refuses a key that is no plain path, or that leads to something that is no object (see
    `require_plain`), with an `InputError`.
    """

    url: str
    """Where this is, for messages and for opening it again."""
    local: bool = True
    """Whether reading every byte to check it is cheap."""

    @abstractmethod
    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object, to its end by default.

        Raises:
            FileNotFoundError: no such object.
        """

    @abstractmethod
    def gather(self, ranges: Sequence[ByteRange], rows: Sequence[np.ndarray]) -> Iterator[int]:
        """Read many ranges, range i into `rows[i]` (uint8 `[length]`); yields i as soon as it is there, in any order.

        Raises:
            FileNotFoundError: no such object.
            EOFError: an object ends before its range does.
        """

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes of an object, None where there is none."""

    @abstractmethod
    def keys(self, prefix: str) -> list[str]:
        """Keys below a folder, sorted; unpublished objects are not among them."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing an older one at once."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; it need not exist."""

    @abstractmethod
    def stage(self, key: str, size: int) -> AbstractContextManager[StagedObject]:
        """Begin an object; what was not published when the block ends is discarded."""

    @abstractmethod
    def remove_abandoned(self) -> list[str]:
        """Discard what killed writers left unpublished; returns its names."""

    def size_problem(self, key: str, size: int) -> str | None:
        """Why an object has not so many bytes, None if it has."""
        where = f"{self.url}/{key}"
        try:
            found = self.size(key)
        except InputError as error:
            return str(error)
        if found is None:
            return f"{where}: missing"
        return None if found == size else f"{where}: {found} bytes instead of {size}"

    def create(self, key: str, data: bytes) -> bool:
        """Write an object that must not exist yet; False if it does."""
        with self.stage(key, len(data)) as staged:
            staged.write(0, data)
            return staged.publish()

    def take(self, key: str, source: "ObjectStore") -> bool:
        """Bring an object over from another place under the same key; False if the key exists here already.

        Raises:
            FileNotFoundError: no such object there.
        """
        size = source.size(key)
        if size is None:
            raise FileNotFoundError(f"{source.url}/{key}")
        with self.stage(key, size) as staged:
            for start in range(0, size, _BLOCK_BYTES):
                staged.write(start, source.read(key, start, min(_BLOCK_BYTES, size - start)))
            return staged.publish()

    def creates_exclusively(self) -> bool:
        """Try out whether a second creation of one key is refused; some object stores silently overwrite."""
        key = f".probe-{uuid.uuid4().hex}"
        first, second = self.create(key, b"1"), self.create(key, b"2")
        self.delete(key)
        return first and not second
