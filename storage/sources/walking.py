"""What is below a folder. Folders that are links are followed, as torchvision's ImageFolder does."""

import os
from collections.abc import Iterator
from pathlib import Path

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable

MOST_LINKED_FOLDERS = 10_000
"""A few links to one another make more ways than can be walked."""


def entries_below(root: Path, hidden: bool) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder that is no folder itself, in no order.

    Args:
        root: the folder.
        hidden: whether names that begin with a dot count.

    Raises:
        InputError: a folder cannot be read, or a link leads nowhere or to a folder that it lies in.
    """
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [(str(root), (_identity(str(root)),))]
    linked = 0
    while waiting:
        folder, above = waiting.pop()
        for entry in _entries(folder, hidden):
            if not _is_folder(entry):
                yield entry
                continue
            identity = _identity(entry.path)
            if identity in above:
                raise InputError(f"{printable(entry.path)} is a link to a folder that it lies in; delete the link")
            linked += entry.is_symlink()
            if linked > MOST_LINKED_FOLDERS:
                raise InputError(f"{printable(root)} holds more than {MOST_LINKED_FOLDERS:,} links to folders")
            waiting.append((entry.path, (*above, identity)))


def _entries(folder: str, hidden: bool) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if hidden or not entry.name.startswith(".")]
    except OSError as error:
        raise _unreadable(folder, error) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to nothing could have been one."""
    try:
        if entry.is_symlink():
            entry.stat()
        return entry.is_dir()
    except FileNotFoundError as error:
        raise InputError(f"{printable(entry.path)} is a link to nothing; mend or delete it") from error
    except OSError as error:
        raise _unreadable(entry.path, error) from error


def _identity(folder: str) -> tuple[int, int]:
    try:
        found = os.stat(folder)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return found.st_dev, found.st_ino


def _unreadable(path: str, error: OSError) -> InputError:
    return InputError(f"{printable(path)} cannot be read: {error.strerror}")
