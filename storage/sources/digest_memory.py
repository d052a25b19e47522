"""Content digests of image sources, remembered, so that a second run does not read every image again.

A digest is found again by path, size and times of every file. A file that was changed has another time, so a wrong
digest is never found; a folder that was moved is read again.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agd_core.basics.atomic import write_bytes
from agd_core.basics.digest import digest
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import read_json, require_regular
from storage.sources.images import ImageSource


def stamp(source: ImageSource) -> str:
    """sha256 of path, size, time of last change and time of last change of its entry, of every file of a source.

    Raises:
        InputError: a file is not there or is no regular file.
    """
    return digest([_stamp(path) for path in source.files()])


def _stamp(path: Path) -> list[Any]:
    require_regular(path)
    found = path.stat()
    return [_text(path.absolute()), found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def _text(path: Path) -> str | list[int]:
    """A path as JSON can hold it: a name that is not UTF-8 is a list of its bytes."""
    data = os.fsencode(path)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)


class DigestMemory:
    """Digests by stamp in a small JSON file; a damaged file is an empty one.

    Args:
        path: the file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def content_digest(self, source: ImageSource, each: Callable[[int], None] = lambda done: None) -> str:
        """The source's content digest, from memory or by reading it.

        Args:
            source: any.
            each: as in `ImageSource.content_digest`; not called where the digest is remembered.
        """
        before = stamp(source)
        known = self._read().get(before)
        if known is not None:
            return known
        found = source.content_digest(each)
        entries = {**self._read(), before: found}
        write_bytes((json.dumps(entries, indent=2, sort_keys=True) + "\n").encode(), self._path)
        return found

    def _read(self) -> dict[str, str]:
        try:
            entries = read_json(self._path)
        except InputError:
            return {}
        pairs = entries.items() if isinstance(entries, dict) else ()
        return {key: value for key, value in pairs if isinstance(value, str)}
