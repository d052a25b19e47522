"""Kernel file locks, free at once when their holder dies, however it dies; and files that every user may lock."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agd_core.basics.errors import InputError
from agd_core.basics.progress import ShouldStop, Stopped
from agd_core.basics.safe_files import printable

_POLL_SECONDS = 0.2
_NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO}
"""What opening a link, a folder, a socket or a device answers."""


@contextmanager
def opened_lock(path: Path) -> Iterator[int]:
    """A descriptor of a file to lock, made where it is missing; what it holds stays, and a link is not followed.

    Raises:
        InputError: a link, a folder, a pipe or a device lies there.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _no_file(path) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _no_file(path)
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file, unless it is locked through another opening of it, in whatever process."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_until(
    attempt: Callable[[], bool], awaited: Callable[[], str], announce: Callable[[str], None], should_stop: ShouldStop
) -> None:
    """Try until it works; if it does not at once, what is awaited is announced, once.

    Raises:
        Stopped: asked to, while waiting.
    """
    if attempt():
        return
    waiting = f"waiting for {awaited()}"
    announce(waiting)
    while not attempt():
        if should_stop():
            raise Stopped(f"stopped while {waiting}; run the same command again")
        time.sleep(_POLL_SECONDS)


def make_shared_folder(folder: Path) -> None:
    """For all users of the machine, like the folder for temporary files."""
    with suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)


def open_shared(path: Path) -> int:
    """A descriptor of a file that every user may write; neither it nor its folder may be a link.

    It is created where it is missing, but not its folder. Writes are appended.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # Created apart: Linux may refuse O_CREAT on a file of another user in a folder such as this.
        with suppress(FileExistsError):
            created = os.open(path.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=folder)
            os.fchmod(created, 0o666)
            os.close(created)
        return os.open(path.name, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


def is_named(descriptor: int, path: Path) -> bool:
    """Whether others who open this path get the same file; cleaners of temporary folders delete what nobody locks."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _no_file(path: Path) -> InputError:
    return InputError(f"lock {printable(path)} is no regular file; delete it")
