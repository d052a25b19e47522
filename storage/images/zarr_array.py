"""A Zarr array of images, format 2 or 3."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from storage.images.base import ImageSource
from storage.images.pixels import PixelImage
from storage.images.problems import ImageProblem

METADATA = ("zarr.json", ".zarray")
"""The file that makes a folder an array (or, the first, a group)."""
_CODECS = ("codecs", "filters", "compressor")
_CHANNELS = (1, 3)
_READ_BYTES = 32 << 20


class ZarrImages(ImageSource):
    """The rows of an array uint8 `[images, height, width]` or `[images, height, width, 1 or 3]`.

    Args:
        place: the array's folder.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._root = Path(place).expanduser()
        _refuse_pickle(self._root)
        self._array = _open(self._root)

    def __len__(self) -> int:
        return int(self._array.shape[0])

    def files(self) -> Iterator[Path]:
        """Metadata and chunks."""
        return (path for path in sorted(self._root.rglob("*")) if path.is_file())

    def images(self) -> Iterator[PixelImage]:
        """Every row; whole chunks are read, as many as fit into 32 MB."""
        rows = _rows_per_read(self._array)
        for first in range(0, len(self), rows):
            for row, pixels in enumerate(self._read(first, first + rows), start=first):
                yield PixelImage(f"{self._root}[{row}]", pixels if pixels.ndim == 3 else pixels[..., None])

    def captions(self) -> None:
        """None: an array has no texts."""

    def _read(self, first: int, last: int) -> np.ndarray:
        try:
            return np.asarray(self._array[first:last])
        except Exception as error:  # codecs raise what they like over broken bytes
            raise ImageProblem(f"{self._root}: rows from {first} on cannot be read: {error}") from error


def _refuse_pickle(root: Path) -> None:
    """Refuse an array whose metadata name the one codec of numcodecs that unpickles.

    Raises:
        ImageProblem: it is among an array's codecs, or the metadata cannot be read.
    """
    found = [root / name for name in METADATA if (root / name).is_file()]
    try:
        settings = [json.loads(path.read_text(encoding="utf-8")) for path in found]
        codecs = json.dumps([setting.get(name) for setting in settings for name in _CODECS])
    except (OSError, ValueError, AttributeError) as error:
        raise ImageProblem(f"{root} is no Zarr array: its metadata cannot be read") from error
    if not found:
        raise ImageProblem(f"{root} is no Zarr array: it has neither {' nor '.join(METADATA)}")
    if "pickle" in codecs.lower():
        raise ImageProblem(f"{root} is packed with pickle, which is never unpacked here: it could run any code")


def _open(root: Path) -> Any:
    import zarr

    try:
        array = zarr.open_array(str(root), mode="r")
    except Exception as error:  # zarr has an exception per way in which metadata can be wrong
        raise ImageProblem(f"{root} is no Zarr array (of a group, name the array in it): {error}") from error
    shape = array.shape
    if str(array.dtype) != "uint8" or len(shape) not in (3, 4) or (*shape, 1)[3] not in _CHANNELS:
        raise ImageProblem(
            f"{root} is {array.dtype} {list(shape)}; allowed is uint8 [images, height, width] or "
            "[images, height, width, 1 or 3]"
        )
    return array


def _rows_per_read(array: Any) -> int:
    chunk_rows = int(array.chunks[0])
    chunk_bytes: int = chunk_rows * math.prod(array.shape[1:])
    return chunk_rows * max(1, _READ_BYTES // max(1, chunk_bytes))
