"""Content digests of image sources, remembered, so that a second run does not read every image again.

A digest is found again by path, size and times of every file. A file that was changed has another time, so a wrong
digest is never found; a folder that was moved is read again.
"""

import json
from collections.abc import Callable
from pathlib import Path

from agd_core.atomic import write_bytes
from agd_core.digest import digest
from storage.images.base import ImageSource


def stamp(source: ImageSource) -> str:
    """sha256 of path, size, time of last change and time of last change of its entry, of every file of a source."""
    found = ((path.absolute(), path.stat()) for path in source.files())
    return digest([[str(path), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for path, stat in found])


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
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        pairs = entries.items() if isinstance(entries, dict) else ()
        return {key: value for key, value in pairs if isinstance(value, str)}
