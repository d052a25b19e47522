"""A folder of image files, folders within it included."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from agd_core.basics.home import expand
from agd_core.basics.safe_files import printable, read_bytes, require_regular
from storage.sources.images import ImageSource
from storage.sources.pixels import MOST_BYTES, SUFFIXES, EncodedImage
from storage.sources.walking import entries_below


class FolderImages(ImageSource):
    """PNG, JPEG and WebP files by their path below the folder; names that begin with a dot are left out.

    Links to files and folders are followed, see `storage.sources.walking`.

    Args:
        place: the folder.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._root = expand(place)

    @cached_property
    def _names(self) -> list[str]:
        found = [entry for entry in entries_below(self._root, hidden=False) if entry.name.lower().endswith(SUFFIXES)]
        return sorted(Path(_regular(entry)).relative_to(self._root).as_posix() for entry in found)

    def __len__(self) -> int:
        return len(self._names)

    def files(self) -> Iterator[Path]:
        """Every image."""
        return (self._root / name for name in self._names)

    def images(self) -> Iterator[EncodedImage]:
        """Every file as one image."""
        return (EncodedImage(printable(path), read_bytes(path, MOST_BYTES)) for path in self.files())


def _regular(entry: os.DirEntry[str]) -> str:
    if not entry.is_file():  # which costs nothing where the folder says so
        require_regular(entry.path)
    return entry.path
