"""The kinds of files that real images and prompts come in, and from what a person names to the right one."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from agd_core.basics.errors import InputError
from agd_core.basics.home import expand
from agd_core.basics.safe_files import printable
from storage.sources import parquet, tar, text_file
from storage.sources.folder import FolderImages
from storage.sources.images import ImageSource
from storage.sources.parquet import ParquetImages, parquet_texts
from storage.sources.tar import TarImages, tar_texts
from storage.sources.text_file import text_lines
from storage.sources.texts import StoredText, checked
from storage.sources.zarr_array import METADATA, ZarrImages

_Reading = TypeVar("_Reading")


@dataclass(frozen=True)
class Kind:
    """A format: how its images are read, and how its texts; None where it has none."""

    marks: tuple[str, ...]
    """Names or patterns of the files that make a folder one of this kind."""
    images: Callable[[str], ImageSource] | None = None
    texts: Callable[[str], Iterator[StoredText]] | None = None


KINDS = {
    ".zarr": Kind(METADATA, images=ZarrImages),
    tar.SUFFIX: Kind((f"*{tar.SUFFIX}",), images=TarImages, texts=tar_texts),
    parquet.SUFFIX: Kind((f"*{parquet.SUFFIX}",), images=ParquetImages, texts=parquet_texts),
    text_file.SUFFIX: Kind((f"*{text_file.SUFFIX}",), texts=text_lines),
}
"""By the end of a name. Of a folder the first counts whose marks it holds, else it is one of image files."""
_IMAGES = "a folder of PNG, JPEG or WebP files, WebDataset .tar files, a .zarr array, .parquet files"
_PROMPTS = "a .txt file with one prompt a line, .parquet files, WebDataset .tar files, or a folder of one of these"


def open_images(place: str) -> ImageSource:
    """The images of a place on this machine.

    Args:
        place: a folder of image files, a `.tar`, `.zarr` or `.parquet`, a folder of tars or Parquet files, or a
            pattern of such files, see `storage.sources.places.named_files`.

    Raises:
        InputError: there is nothing, or nothing that is known here, or it holds no images.
    """
    readings = {suffix: kind.images for suffix, kind in KINDS.items() if kind.images}
    source = _reading(place, readings, _IMAGES, FolderImages)(place)
    if not len(source):
        raise InputError(f"{printable(place)} holds no images; allowed are {_IMAGES}")
    return source


def read_prompts(place: str, most: int | None = None) -> tuple[str, ...]:
    """The prompts of a place on this machine: without surrounding white space, each once, as they first appear.

    Texts of nothing but white space are left out. The files are read as a stream, and images in them not at all.

    Args:
        place: a `.txt`, `.parquet` or `.tar`, a folder of such files, or a pattern of them, see
            `storage.sources.places.named_files`.
        most: stop after so many prompts; what comes behind them is not looked at.

    Raises:
        InputError: there is nothing, or nothing that is known here, it is broken or holds no prompts.
    """
    readings = {suffix: kind.texts for suffix, kind in KINDS.items() if kind.texts}
    prompts = tuple(islice(_distinct(_reading(place, readings, _PROMPTS)(place)), most))
    if not prompts:
        raise InputError(f"{printable(place)} holds no prompts; allowed are {_PROMPTS}")
    return prompts


def _distinct(texts: Iterator[StoredText]) -> Iterator[str]:
    seen = {""}
    for where, text in texts:
        prompt = checked(where, text)
        if prompt not in seen:
            seen.add(prompt)
            yield prompt


def _reading(
    place: str, readings: Mapping[str, _Reading], allowed: str, of_folders: _Reading | None = None
) -> _Reading:
    """How to read a place, by the end of its name or by what is in the folder."""
    path = expand(place)
    if known := readings.get(path.suffix.lower()):
        return known
    if not place or not os.path.exists(path):
        raise InputError(f"{printable(place) or repr(place)} does not exist; allowed are {allowed}")
    found = [readings[suffix] for suffix in readings if path.is_dir() and _holds(path, KINDS[suffix].marks)]
    if path.is_dir() and of_folders:
        found.append(of_folders)
    if not found:
        raise InputError(f"{printable(place)} is of no known kind; allowed are {allowed}")
    return found[0]


def _holds(folder: Path, marks: Iterable[str]) -> bool:
    return any(True for mark in marks for _ in folder.glob(mark))
