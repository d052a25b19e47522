"""The kinds of files that real images and prompts come in, and from what a person names to the right one."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

from agd_core.basics.errors import InputError
from agd_core.basics.home import expand
from agd_core.basics.safe_files import printable
from storage.sources import parquet, tar, text_file
from storage.sources.folder import FolderImages, folder_captions, folder_labels
from storage.sources.images import ImageSource
from storage.sources.parquet import ParquetImages, parquet_labels, parquet_texts
from storage.sources.tar import TarImages, tar_texts
from storage.sources.tar_pairs import tar_captions, tar_labels
from storage.sources.text_file import text_lines
from storage.sources.texts import StoredText, checked
from storage.sources.zarr_array import METADATA, ZarrImages

_Reading = TypeVar("_Reading")
Shown = Literal["captions", "labels"]
"""What is told of each image: a text for a model that takes prompts, or the name or number of a class."""


@dataclass(frozen=True)
class Kind:
    """A format: how its images are read, its texts, and what is told of each image; None where it has none."""

    marks: tuple[str, ...]
    """Names or patterns of the files that make a folder one of this kind."""
    images: Callable[[str], ImageSource] | None = None
    texts: Callable[[str], Iterator[StoredText]] | None = None
    captions: Callable[[str], Iterator[StoredText]] | None = None
    """One for every image, in the order of the images."""
    labels: Callable[[str], Iterator[StoredText]] | None = None
    """The same of classes."""


KINDS = {
    ".zarr": Kind(METADATA, images=ZarrImages),
    tar.SUFFIX: Kind((f"*{tar.SUFFIX}",), images=TarImages, texts=tar_texts, captions=tar_captions, labels=tar_labels),
    parquet.SUFFIX: Kind(
        (f"*{parquet.SUFFIX}",),
        images=ParquetImages,
        texts=parquet_texts,
        captions=parquet_texts,
        labels=parquet_labels,
    ),
    text_file.SUFFIX: Kind((f"*{text_file.SUFFIX}",), texts=text_lines),
}
"""By the end of a name. Of a folder the first counts whose marks it holds, else it is one of image files."""
_FOLDER = "folders of image files"
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


def read_shown(place: str, shown: Shown) -> tuple[str, ...]:
    """What is told of every image of a place, in the order of `open_images`, without surrounding white space.

    Args:
        place: as for `open_images`.
        shown: captions, or labels.

    Raises:
        InputError: there is nothing, the kind tells nothing of its images, or an image lacks its caption or label.
    """
    known = {**KINDS, _FOLDER: Kind((), FolderImages, captions=folder_captions, labels=folder_labels)}
    kinds = {suffix: kind for suffix, kind in known.items() if kind.images}
    kind = _reading(place, kinds, _IMAGES, kinds.pop(_FOLDER))
    read = kind.captions if shown == "captions" else kind.labels
    if read is None:
        allowed = ", ".join(name for name, kind in known.items() if getattr(kind, shown))
        raise InputError(f"{printable(place)} tells no {shown} of its images; kinds that do: {allowed}")
    return tuple(_told(where, text, shown) for where, text in read(place))


def _told(where: str, text: str, shown: Shown) -> str:
    if found := checked(where, text):
        return found
    raise InputError(f"{where} is empty; every image needs one of the {shown}")


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
