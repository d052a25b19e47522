"""A folder of image files, folders within it included."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from agd_core.basics.errors import InputError
from agd_core.basics.home import expand
from agd_core.basics.safe_files import printable, read_bytes, read_text, require_regular
from storage.sources.images import ImageSource
from storage.sources.pixels import MOST_BYTES, SUFFIXES, EncodedImage
from storage.sources.text_file import SUFFIX as TEXT
from storage.sources.texts import MOST_TEXT_BYTES, StoredText
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


def folder_captions(place: str) -> Iterator[StoredText]:
    """Of every image the text file beside it, of the same name but for its ending.

    Raises:
        InputError: an image has none, or it is too large or not UTF-8.
    """
    for image in FolderImages(place).files():
        file = image.with_suffix(TEXT)
        if not file.exists():
            raise InputError(f"{printable(image)} has no caption: {printable(file.name)} is not beside it")
        yield StoredText(printable(file), read_text(file, MOST_TEXT_BYTES))


def folder_labels(place: str) -> Iterator[StoredText]:
    """Of every image the name of the folder that it lies in, below the place.

    Raises:
        InputError: an image lies in no folder of its class.
    """
    source = FolderImages(place)
    root = expand(place)
    for image in source.files():
        if image.parent == root:
            raise InputError(f"{printable(image)} has no label: it lies in no folder that is named as its class")
        yield StoredText(printable(image), image.parent.name)


def _regular(entry: os.DirEntry[str]) -> str:
    if not entry.is_file():  # which costs nothing where the folder says so
        require_regular(entry.path)
    return entry.path
