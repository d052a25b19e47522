"""Walking a folder that anybody may have made: no link is followed, and neither depth nor number fills the stack."""

import os
from collections.abc import Iterator
from pathlib import Path

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable

MOST_FOLDERS_DEEP = 64
"""Folders inside one another; ours have less than 10."""


def walk(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """Everything below a folder, in no order; nothing where there is no such folder.

    Raises:
        InputError: a folder that cannot be listed, or more than `MOST_FOLDERS_DEEP` inside one another.
    """
    waiting = [(str(folder), 0)]
    while waiting:
        path, depth = waiting.pop()
        if depth > MOST_FOLDERS_DEEP:
            raise InputError(f"{printable(folder)} has folders nested deeper than {MOST_FOLDERS_DEEP} levels")
        for entry in _listed(path):
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, depth + 1))
            yield entry


def files_below(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder, in no order; links are left out."""
    return (Path(entry.path) for entry in walk(folder) if entry.is_file(follow_symlinks=False))


def strangers_below(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is neither a folder nor a regular file: links, pipes, sockets, devices."""
    entries = (entry for entry in walk(folder) if not entry.is_dir(follow_symlinks=False))
    return (Path(entry.path) for entry in entries if not entry.is_file(follow_symlinks=False))


def links_below(folder: Path) -> Iterator[Path]:
    """Every link below a folder, in no order."""
    return (Path(entry.path) for entry in walk(folder) if entry.is_symlink())


def _listed(path: str) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(path) as entries:
            yield from entries
    except FileNotFoundError:
        return  # deleted since it was seen, or never there
    except OSError as error:
        raise InputError(f"{printable(path)} cannot be listed: {error.strerror}") from error
