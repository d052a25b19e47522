"""Files and folders that appear whole or not at all, and survive a power cut once the call returns."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A partial file to write, which replaces `path` when the block ends: fsync, rename, fsync of the folder.

    Where the block fails the partial file is gone and what `path` held before is still there.

    Raises:
        OSError: no space, no permission, a disk that fails; it names `path`.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)  # a link that somebody laid there would be written through
        try:
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to fill, which replaces `folder` when the block ends; one process at a time may do so.

    Where the block fails, or the process is killed, what `folder` held before is still there. Between two renames
    there is none for a moment. What a killed process left beside it goes at the next call.

    Raises:
        OSError: no space, no permission, a disk that fails.
    """
    partial, old = (folder.with_name(f".{folder.name}.{ending}") for ending in ("partial", "old"))
    for abandoned in (partial, old):
        _remove(abandoned)
    partial.mkdir(parents=True)
    try:
        yield partial
        _sync_below(partial)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    finally:
        for done_with in (partial, old):
            _remove(done_with)
    sync_folder(folder.parent)


def write_bytes(data: bytes, path: Path) -> None:
    """Replace `path` with `data`, see `replacing`."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_json(value: object, path: Path) -> None:
    """Replace `path` with indented JSON, see `replacing`."""
    write_bytes(json_bytes(value), path)


def json_bytes(value: object) -> bytes:
    """Indented JSON as our files hold it."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def sync_folder(path: Path) -> None:
    """Force a folder's entries to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_below(folder: Path) -> None:
    """Force all that a folder holds to disk."""
    for path in (*folder.rglob("*"), folder):
        sync_folder(path)


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have an error of the system name the file that was to be written: that of a full disk names none."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
