"""A Zarr array of images, format 2 or 3."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from agd_core.basics.errors import InputError, first_line
from agd_core.basics.home import expand
from agd_core.basics.safe_files import printable, read_json, require_regular
from storage.sources.images import ImageSource
from storage.sources.pixels import MOST_PIXELS, PixelImage
from storage.sources.walking import entries_below

METADATA = ("zarr.json", ".zarray")
"""The file that makes a folder an array (or, the first, a group)."""
MOST_CHUNK_BYTES = 1 << 30
"""Largest chunk, unpacked."""
MOST_CHUNKS_PER_FILE = 1 << 20
"""Of a shard: where each of them is, is read into memory."""
_CODECS = ("codecs", "filters", "compressor")
_CHANNELS = (1, 3)
_READ_BYTES = 32 << 20
_MOST_METADATA_BYTES = 1 << 20
_SLACK_BYTES = 1 << 20


class ZarrImages(ImageSource):
    """The rows of an array uint8 `[images, height, width]` or `[images, height, width, 1 or 3]`.

    Args:
        place: the array's folder.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._root = expand(place)
        self._name = printable(self._root)
        _refuse_pickle(self._root)
        self._files = _regular_files(self._root)  # before Zarr opens what it finds
        self._array = _open(self._root)
        _require_stored(self._name, self._array, self._files)

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def files(self) -> list[Path]:
        """Metadata and chunks."""
        return self._files

    def images(self) -> Iterator[PixelImage]:
        """Every row; whole chunks are read, as many as fit into 32 MB."""
        rows = _rows_per_read(self._array)
        for first in range(0, len(self), rows):
            for row, pixels in enumerate(self._read(first, first + rows), start=first):
                yield PixelImage(f"{self._name}[{row}]", pixels if pixels.ndim == 3 else pixels[..., None])

    def _read(self, first: int, last: int) -> np.ndarray:
        try:
            return np.asarray(self._array[first:last])
        except Exception as error:  # codecs raise what they like over broken bytes
            reason = printable(first_line(error))
            raise InputError(f"{self._name}: rows from {first} on cannot be read: {reason}") from error


def _regular_files(root: Path) -> list[Path]:
    """Everything below the array's folder.

    Raises:
        InputError: a folder cannot be read, or something is no regular file.
    """
    found = sorted(Path(entry.path) for entry in entries_below(root, hidden=True))
    for path in found:
        require_regular(path)
    return found


def _refuse_pickle(root: Path) -> None:
    """Refuse an array whose metadata name the one codec of numcodecs that unpickles, before Zarr makes codecs of them.

    Raises:
        InputError: it is among an array's codecs, or the metadata cannot be read.
    """
    found = [root / name for name in METADATA if (root / name).exists()]
    if not found:
        raise InputError(f"{printable(root)} is no Zarr array: it has neither {' nor '.join(METADATA)}")
    for path in found:
        settings = read_json(path, _MOST_METADATA_BYTES)
        if not isinstance(settings, dict):
            raise InputError(f"{printable(root)} is no Zarr array: {path.name} is no object")
        if "pickle" in str([settings.get(name) for name in _CODECS]).lower():
            raise InputError(
                f"{printable(root)} is packed with pickle, which is never unpacked here: it could run any code"
            )


def _open(root: Path) -> Any:
    import zarr

    from storage.sources.zarr_codecs import bounded

    name = printable(root)
    try:
        found = zarr.open_array(str(root), mode="r")
        _require_possible(found)
        plain = found.async_array
        return zarr.Array(zarr.AsyncArray(bounded(plain.metadata), plain.store_path, plain.config))
    except InputError as error:
        raise InputError(f"{name} {error}") from error
    except Exception as error:  # zarr has an exception per way in which metadata can be wrong
        reason = printable(first_line(error))
        raise InputError(f"{name} is no Zarr array (of a group, name the array in it): {reason}") from error


def _require_possible(array: Any) -> None:
    """Images of a size that can be read; a message goes on from the name of the array.

    Raises:
        InputError: other types, shapes or chunks.
    """
    shape, chunks = array.shape, array.chunks
    if str(array.dtype) != "uint8" or len(shape) not in (3, 4) or (*shape, 1)[3] not in _CHANNELS:
        raise InputError(
            f"is {array.dtype} {list(shape)}; allowed is uint8 [images, height, width] or "
            "[images, height, width, 1 or 3]"
        )
    if shape[1] * shape[2] > MOST_PIXELS:
        raise InputError(f"has images of {shape[2]} x {shape[1]} pixels; allowed are {MOST_PIXELS:,} pixels")
    if math.prod(chunks) > MOST_CHUNK_BYTES:
        raise InputError(f"has chunks of {math.prod(chunks):,} bytes; allowed are {MOST_CHUNK_BYTES:,}")
    if math.prod(_chunks_per_file(array)) > MOST_CHUNKS_PER_FILE:
        raise InputError(
            f"has {math.prod(_chunks_per_file(array)):,} chunks in a shard; allowed are {MOST_CHUNKS_PER_FILE:,}"
        )


def _require_stored(name: str, array: Any, files: list[Path]) -> None:
    """Most chunks are there, and no file is larger than what it can hold.

    Raises:
        InputError: more than half of the files are missing, so that the array would be all but empty; or one is larger.
    """
    per_file = array.shards or array.chunks
    wanted = math.prod(-(-side // length) for side, length in zip(array.shape, per_file, strict=True))
    if wanted > 2 * len(files):
        raise InputError(f"{name} needs {wanted:,} files of chunks, most of them are missing")
    most = 2 * math.prod(per_file) + _SLACK_BYTES
    if large := next((path for path in files if path.stat().st_size > most), None):
        raise InputError(f"{printable(large)} is larger than {most:,} bytes, the most that its chunks can take")


def _chunks_per_file(array: Any) -> list[int]:
    return [whole // part for whole, part in zip(array.shards or array.chunks, array.chunks, strict=True)]


def _rows_per_read(array: Any) -> int:
    chunk_rows = int(array.chunks[0])
    chunk_bytes: int = chunk_rows * math.prod(array.shape[1:])
    return chunk_rows * max(1, _READ_BYTES // max(1, chunk_bytes))
