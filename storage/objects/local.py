"""A local folder. An object is written beside its place and linked there: whole, durable, never over another.

The folder may be anybody's: a key is a plain name (`require_plain`), nothing below the root is reached through a link,
and only regular files are opened. A folder is looked at once, a file when it is opened, so that reading costs nothing.

A file is written to only while its sole name ends in `.partial`, by the one descriptor that created it. From the moment
it has its own name it is read, unlinked or replaced by another file, and nothing else: so two folders may hold the same
object as hard links to one file (`take`), and whatever one of them does leaves the other's alone.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from agd_core.basics.atomic import sync_folder
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from storage.objects.base import ByteRange, ObjectStore, require_plain
from storage.objects.staged_file import (
    NO_LINKS,
    OUR_PARTIALS,
    PARTIAL,
    READ,
    StagedFile,
    make_folders,
    removed_if_abandoned,
)
from storage.walking import files_below

_OPEN_FILES = 256
_MOST_WHOLE = 2 << 30
"""What is read at once of a file whose length nobody stated: plans, markers, indexes."""
_NO_FILE = {errno.ELOOP, errno.ENXIO, errno.EOPNOTSUPP}
"""What opening a link, a socket or a device answers."""


class LocalObjects(ObjectStore):
    """Files below a folder; safe to hand to forked and spawned processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)
        self._open: dict[str, _OpenFile] = {}
        self._real_folders: set[Path] = {root}

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        descriptor = self._descriptor(key)
        with os.fdopen(descriptor, "rb") as file:
            left = max(0, os.fstat(descriptor).st_size - start)
            if length is None and left > _MOST_WHOLE:
                raise InputError(f"{printable(self.root / key)} is larger than {_MOST_WHOLE:,} bytes")
            file.seek(start if left else 0)
            return file.read(left if length is None else min(length, left))

    def gather(self, ranges: Sequence[ByteRange], rows: Sequence[np.ndarray]) -> Iterator[int]:
        """What the page cache has is read at once; the rest is asked for together, so that the disk sees it all."""
        cold = []
        for number, (part, row) in enumerate(zip(ranges, rows, strict=True)):
            if self._opened(part.key).read_cached(part, row):
                yield number
            else:
                cold.append(number)
        for number in cold:
            self._opened(ranges[number].key).ask_for(ranges[number])
        for number in cold:
            part, row = ranges[number], rows[number]
            if self._opened(part.key).read(part, row) != part.length:
                raise EOFError(f"{self.root / part.key} ends before byte {part.start + part.length}")
            yield number

    def size(self, key: str) -> int | None:
        path = self._path(key)
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        _require_file(found, path)
        return found.st_size

    def keys(self, prefix: str) -> list[str]:
        folder = self._path(f"{prefix}/x").parent if prefix else self.root
        return sorted(p.relative_to(self.root).as_posix() for p in files_below(folder) if p.suffix != PARTIAL)

    def put(self, key: str, data: bytes) -> None:
        with self.stage(key, len(data)) as staged:
            staged.write(0, data)
            staged.replace()
        self._open.pop(key, None)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            sync_folder(path.parent)
        self._open.pop(key, None)

    def creates_exclusively(self) -> bool:
        """A link is refused where the name exists, whatever the file system."""
        return True

    @contextmanager
    def stage(self, key: str, size: int) -> Iterator[StagedFile]:
        path = self._path(key)
        make_folders(path.parent)
        staged = StagedFile(path)
        try:
            yield staged
        finally:
            staged.discard()

    def take(self, key: str, source: ObjectStore) -> bool:
        """From another folder an object comes as a second name of the same file, where the file system has that."""
        if not isinstance(source, LocalObjects):
            return super().take(key, source)
        path = self._path(key)
        make_folders(path.parent)
        os.close(source._descriptor(key))
        try:
            os.link(source._path(key), path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in {*NO_LINKS, errno.EXDEV}:
                raise
            return super().take(key, source)
        sync_folder(path.parent)
        return True

    def remove_abandoned(self) -> list[str]:
        partials = [path for path in files_below(self.root) if OUR_PARTIALS.fullmatch(path.name)]
        return [path.relative_to(self.root).as_posix() for path in partials if removed_if_abandoned(path)]

    def _opened(self, key: str) -> "_OpenFile":
        file = self._open.get(key)
        if file is None:
            file = self._open[key] = _OpenFile(self._descriptor(key))
            if len(self._open) > _OPEN_FILES:
                with suppress(RuntimeError, StopIteration):  # another thread made room at this moment
                    self._open.pop(next(iter(self._open)), None)
        return file

    def _path(self, key: str) -> Path:
        """Where an object lies, or is to lie.

        Raises:
            InputError: the key is not plain, or a folder on the way is a link.
        """
        require_plain(key, self.url)
        path = self.root / key
        if path.parent not in self._real_folders:
            self._look_at_folders(path.parent)
        return path

    def _look_at_folders(self, folder: Path) -> None:
        for part in (folder, *folder.parents[: len(folder.relative_to(self.root).parts) - 1]):
            if part.is_symlink():
                raise InputError(f"{printable(part)} is a link; no link inside {printable(self.url)} is followed")
        if folder.is_dir():
            self._real_folders.add(folder)

    def _descriptor(self, key: str) -> int:
        """A regular file opened for reading.

        Raises:
            FileNotFoundError: no such object.
            InputError: something else lies there.
        """
        path = self._path(key)
        try:
            descriptor = os.open(path, READ)
        except NotADirectoryError as error:
            raise FileNotFoundError(error.errno, error.strerror, str(path)) from None
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise _no_file(path) from None
        try:
            _require_file(os.fstat(descriptor), path)
        except InputError:
            os.close(descriptor)
            raise
        return descriptor

    def __getstate__(self) -> dict[str, Path]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Path]) -> None:
        self.__init__(state["root"])  # type: ignore[misc]


class _OpenFile:
    """Closed when nobody uses it any more: no thread reads through a number that was given to another file.

    A forked process has its own, and reads by position share nothing.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read_cached(self, part: ByteRange, row: np.ndarray) -> bool:
        """Read if no disk is needed for it; False if one is, or if the file system cannot tell."""
        try:
            return os.preadv(self._descriptor, [row.data], part.start, os.RWF_NOWAIT) == part.length
        except OSError:
            return False

    def ask_for(self, part: ByteRange) -> None:
        """Let the kernel begin to read."""
        os.posix_fadvise(self._descriptor, part.start, part.length, os.POSIX_FADV_WILLNEED)

    def read(self, part: ByteRange, row: np.ndarray) -> int:
        """Read, waiting for the disk; returns how many bytes there were."""
        return os.preadv(self._descriptor, [row.data], part.start)

    def __del__(self) -> None:
        os.close(self._descriptor)


def _require_file(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _no_file(path)


def _no_file(path: Path) -> InputError:
    return InputError(f"{printable(path)} is no regular file: a link, a folder, a pipe or a device")
