"""A folder of image files, folders within it included."""

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from storage.images.base import ImageSource
from storage.images.pixels import SUFFIXES, EncodedImage, read_bounded
from storage.images.problems import ImageProblem


class FolderImages(ImageSource):
    """PNG, JPEG and WebP files by their path below the folder; names that begin with a dot are left out.

    Args:
        place: the folder.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._root = Path(place).expanduser()

    @cached_property
    def _names(self) -> list[str]:
        found = []
        for folder, folders, files in os.walk(self._root, onerror=_refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            shown = [name for name in files if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
            found += [(Path(folder) / name).relative_to(self._root).as_posix() for name in shown]
        return sorted(found)

    def __len__(self) -> int:
        return len(self._names)

    def files(self) -> Iterator[Path]:
        """Every image."""
        return (self._root / name for name in self._names)

    def images(self) -> Iterator[EncodedImage]:
        """Every file as one image."""
        for path in self.files():
            try:
                with path.open("rb") as file:
                    yield EncodedImage(str(path), read_bounded(file, str(path)))
            except OSError as error:
                raise ImageProblem(f"{path} cannot be read: {error.strerror}") from error

    def captions(self) -> None:
        """None: a folder of images has no texts."""


def _refuse(error: OSError) -> None:
    raise ImageProblem(f"{error.filename} cannot be read: {error.strerror}") from error
