"""A file that is being written beside its place, and linked there once it is whole.

A writer holds a lock on its partial file, which the kernel frees when the writer dies.
"""

import errno
import fcntl
import os
import re
import uuid
from pathlib import Path

import google_crc32c
import numpy as np

from agd_core.basics.atomic import sync_folder
from storage.objects.base import StagedObject

PARTIAL = ".partial"
OUR_PARTIALS = re.compile(r".+\.\d+(-[0-9a-f]+)?\.partial")
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_BLOCK_BYTES = 1 << 20


class StagedFile(StagedObject):
    """A file that is being written under a partial name, which a lock says is in use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        while self._descriptor < 0:
            self._partial = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{PARTIAL}")
            self._descriptor = _open_locked(self._partial)

    def write(self, offset: int, *parts: bytes | np.ndarray) -> None:
        views = [part if isinstance(part, bytes) else part.data for part in parts]
        try:
            written = os.pwritev(self._descriptor, views, offset)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None
        if written != sum(map(len, parts)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def checksum(self) -> int:
        crc, offset = 0, 0
        while block := os.pread(self._descriptor, _BLOCK_BYTES, offset):
            crc, offset = google_crc32c.extend(crc, block), offset + len(block)
        return crc

    def publish(self) -> bool:
        self._sync()
        try:
            os.link(self._partial, self._path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return self._publish_without_links()
        sync_folder(self._path.parent)
        return True

    def replace(self) -> None:
        """Make the object durable and visible under its key in place of an older one."""
        self._sync()
        self._partial.replace(self._path)
        sync_folder(self._path.parent)

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def discard(self) -> None:
        """Drop the partial name; a published object keeps its own."""
        self._partial.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _publish_without_links(self) -> bool:
        """On file systems without hard links: look and rename under a lock that the kernel frees."""
        lock = os.open(self._path.parent, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._path.exists():
                return False
            self._partial.rename(self._path)
            os.fsync(lock)
            return True
        finally:
            os.close(lock)


def make_folders(path: Path) -> None:
    """Make a folder and its parents, each new name forced to disk."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_folder(folder.parent)


def removed_if_abandoned(path: Path) -> bool:
    """Delete a partial file whose writer is dead; False if it lives or the file is gone."""
    try:
        descriptor = os.open(path, READ)
    except OSError:
        return False  # gone, not ours to read, or no file any more
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _open_locked(partial: Path) -> int:
    """A new file with our lock on it; -1 if a cleaner took it in between."""
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if os.fstat(descriptor).st_nlink:
        return descriptor
    os.close(descriptor)
    return -1
