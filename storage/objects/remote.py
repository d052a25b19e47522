"""Any place that fsspec knows: s3://bucket/prefix, gs://, abfs://, memory://. One GET per chunk that is read.

Objects are staged in memory and sent with one PUT that asks the store to refuse if the key exists. Not every store
obeys (`creates_exclusively` tries it out). Credentials and endpoints come from the environment, as fsspec and the
store's own client read them (for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ParamSpec, TypeVar

import fsspec
import numpy as np

from storage.objects.base import ByteRange, ObjectStore, StagedObject, require_plain
from storage.objects.memory import StagedBuffer

_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "config_kwargs": {
            "connect_timeout": 5,
            "read_timeout": 30,
            "retries": {"total_max_attempts": 2},
            "response_checksum_validation": "when_required",  # rclone's range answers fail without
        }
    }
}
_ATTEMPTS = 2
_REFUSED_STATUS = {409, 412}
P = ParamSpec("P")
_T = TypeVar("_T")


class StoreUnreachable(OSError):
    """An object store that does not answer, or answers with an error."""


class RemoteObjects(ObjectStore):
    """Objects below a URL. Clients are made lazily in every process: they do not survive a fork.

    Args:
        url: protocol and path, such as s3://bucket/prefix.

    Raises:
        ValueError: fsspec does not know the protocol.
        ImportError: the protocol's package is not installed.
    """

    local = False

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._protocol = self.url.partition("://")[0]
        self._root: str = fsspec.get_filesystem_class(self._protocol)._strip_protocol(self.url)
        self._client: Any = None
        self._process = -1

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        end = None if length is None else start + length
        data: bytes = self._ask(self._fs.cat_file, self._path(key), start=start or None, end=end)
        return data

    def gather(self, ranges: Sequence[ByteRange], rows: Sequence[np.ndarray]) -> Iterator[int]:
        paths = [self._path(part.key) for part in ranges]
        starts = [part.start for part in ranges]
        ends = [part.start + part.length for part in ranges]
        parts = self._ask(self._fs.cat_ranges, paths, starts, ends, max_gap=None, on_error="raise")
        for number, (wanted, data, row) in enumerate(zip(ranges, parts, rows, strict=True)):
            if len(data) != wanted.length:
                raise EOFError(f"{wanted.key} ends before byte {wanted.start + wanted.length}")
            row[:] = np.frombuffer(data, np.uint8)
            yield number

    def size(self, key: str) -> int | None:
        try:
            return int(self._ask(self._fs.info, self._path(key))["size"])
        except FileNotFoundError:
            return None

    def keys(self, prefix: str) -> list[str]:
        try:
            found = self._ask(self._fs.find, self._path(prefix) if prefix else self._root)
        except FileNotFoundError:
            return []
        return sorted(path.removeprefix(self._root).lstrip("/") for path in found)

    def put(self, key: str, data: bytes) -> None:
        self._ask(self._fs.pipe_file, self._path(key), data, **self._one_request(len(data)))

    def delete(self, key: str) -> None:
        try:
            self._ask(self._fs.rm_file, self._path(key))
        except FileNotFoundError:
            return

    @contextmanager
    def stage(self, key: str, size: int) -> Iterator[StagedObject]:
        yield _StagedUpload(self, key, size)

    def remove_abandoned(self) -> list[str]:
        """Nothing: an upload that was cut off leaves no object."""
        return []

    def create(self, key: str, data: bytes | bytearray) -> bool:
        try:
            self._ask(self._fs.pipe_file, self._path(key), data, mode="create", **self._one_request(len(data)))
        except FileExistsError:
            return False
        return True

    def _one_request(self, size: int) -> dict[str, Any]:
        """S3 clients cut large objects into parts, and some servers forget the condition when they join them."""
        return {"chunksize": max(size, 1)} if self._protocol == "s3" else {}

    @property
    def _fs(self) -> Any:
        if self._process != os.getpid():
            options = {"skip_instance_cache": True, "use_listings_cache": False} | _OPTIONS.get(self._protocol, {})
            self._client, self._process = _impatient(self._protocol)(**deepcopy(options)), os.getpid()
        return self._client

    def _path(self, key: str) -> str:
        require_plain(key, self.url)
        return f"{self._root}/{key}"

    def _ask(self, request: Callable[P, _T], *arguments: P.args, **options: P.kwargs) -> _T:
        """Make a request; what goes wrong is a file error or one clear line."""
        try:
            return request(*arguments, **options)
        except (FileNotFoundError, FileExistsError, PermissionError):
            raise
        except Exception as error:
            if _refused(error):
                raise FileExistsError(*error.args) from error
            raise StoreUnreachable(f"{self.url}: {type(error).__name__}: {error}") from error

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["url"])  # type: ignore[misc]


class _StagedUpload(StagedBuffer):
    def __init__(self, objects: RemoteObjects, key: str, size: int) -> None:
        super().__init__(size)
        self._objects, self._key = objects, key

    def publish(self) -> bool:
        return self._objects.create(self._key, self.data)


def _impatient(protocol: str) -> Any:
    """The protocol's client with fewer attempts: s3fs squares its 5, so that a silent server would take minutes."""
    known = fsspec.get_filesystem_class(protocol)
    return type(known.__name__, (known,), {"retries": _ATTEMPTS})


def _refused(error: Exception) -> bool:
    """Whether an S3 answer says that the key exists already: s3fs hands some of them on as a bare OSError."""
    response = getattr(error.__cause__, "response", None) or getattr(error, "response", None) or {}
    return response.get("ResponseMetadata", {}).get("HTTPStatusCode") in _REFUSED_STATUS
