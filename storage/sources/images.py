"""What a source of real images is: a known number of images in a fixed order, read one after another."""

import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path

import numpy as np

from agd_core.basics.errors import InputError

_BATCH_BYTES = 128 << 20
_MOST_THREADS = 8
_DECODED_TOGETHER = 32
_PIXELS_TOGETHER = 1 << 26
"""Images are decoded together up to so many pixels, which bounds memory; one may have more."""
_CHANNELS = (1, 3)


class StoredImage(ABC):
    """One image as it is stored."""

    name: str
    """Where it is, for messages."""

    @abstractmethod
    def content(self) -> bytes:
        """What is stored of it; equal bytes are equal images."""

    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Width and height as stored, told without decoding.

        Raises:
            InputError: it is broken, or has more pixels than an image may have.
        """

    @abstractmethod
    def pixels(self, crop: int | None) -> np.ndarray:
        """uint8 `[height, width, 1 or 3]`.

        Args:
            crop: resize the short side to this and cut out the centre, see `storage.sources.pixels`; None leaves it.

        Raises:
            InputError: it is broken.
        """


class ImageSource(ABC):
    """Images of one place, read as a stream: nothing of it is held in memory but the names of its files."""

    place: str
    """As a person gave it."""

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are; counts without decoding."""

    @abstractmethod
    def images(self) -> Iterator[StoredImage]:
        """All images, always in the same order.

        Raises:
            InputError: something cannot be read.
        """

    @abstractmethod
    def files(self) -> Iterable[Path]:
        """Every file that the images are read from."""

    def content_digest(self, each: Callable[[int], None] = lambda done: None) -> str:
        """sha256 of what is stored of all images, in order; names, places and times of files do not count.

        So the same PNG files have the same digest in a folder, in a tar and in Parquet.

        Args:
            each: called after every image with the number of those done; what it raises ends the work.
        """
        hasher = hashlib.sha256()
        for done, image in enumerate(self.images(), start=1):
            hasher.update(hashlib.sha256(image.content()).digest())
            each(done)
        return hasher.hexdigest()

    def batches(self, rows: int, crop: int | None = None) -> Iterator[np.ndarray]:
        """The images of this source alone, see `batches`."""
        return batches([self], rows, crop)


def batches(sources: Sequence[ImageSource], rows: int, crop: int | None = None) -> Iterator[np.ndarray]:
    """Images of several sources as if they were one: where one source ends does not show.

    Grey images keep one channel; in a batch with colour images they are repeated to three. Images are decoded in
    threads, since Pillow decodes outside the interpreter's lock.

    Args:
        sources: in order.
        rows: images per batch; fewer where so many would take more than 128 MB.
        crop: as in `StoredImage.pixels`.

    Yields:
        uint8 `[images, height, width, 1 or 3]`.

    Raises:
        InputError: an image is broken, or sizes differ and there is no crop.
    """
    stream = _decoded(chain.from_iterable(source.images() for source in sources), crop)
    for first in islice(stream, 1):
        height, width = first[1].shape[:2]
        rows = max(1, min(rows, _BATCH_BYTES // (height * width * max(_CHANNELS))))
        stream = chain([first], stream)
        while batch := list(islice(stream, rows)):
            for named in batch:
                _require_same_size(first, named)
            yield _stacked([picture for _, picture in batch])


def _decoded(images: Iterator[StoredImage], crop: int | None) -> Iterator[tuple[str, np.ndarray]]:
    """Name and pixels; only a few images are held as they are stored."""
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        for group in _groups(images):
            pictures = list(pool.map(lambda image: image.pixels(crop), group))
            yield from zip((image.name for image in group), pictures, strict=True)


def _groups(images: Iterator[StoredImage]) -> Iterator[list[StoredImage]]:
    group: list[StoredImage] = []
    held = 0
    for image in images:
        pixels = math.prod(image.size())
        if group and (len(group) == _DECODED_TOGETHER or held + pixels > _PIXELS_TOGETHER):
            yield group
            group, held = [], 0
        group, held = [*group, image], held + pixels
    if group:
        yield group


def _require_same_size(first: tuple[str, np.ndarray], other: tuple[str, np.ndarray]) -> None:
    (height, width), (other_height, other_width) = first[1].shape[:2], other[1].shape[:2]
    if (height, width) != (other_height, other_width):
        raise InputError(
            f"images must have one size: {first[0]} has {width} x {height} pixels, {other[0]} has {other_width} x "
            f"{other_height}; evaluate.reference_crop=N resizes the short side to N and cuts out the centre"
        )


def _stacked(pictures: Sequence[np.ndarray]) -> np.ndarray:
    channels = max(picture.shape[2] for picture in pictures)
    return np.stack([np.broadcast_to(picture, (*picture.shape[:2], channels)) for picture in pictures])
