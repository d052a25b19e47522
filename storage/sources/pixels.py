"""From an encoded image to pixels, and the crop.

Grey images (1 bit, 8 bits, with alpha) become one channel; palettes, RGBA, CMYK and YCbCr become RGB. Alpha is
dropped: what shows is the colour stored below it, as in Pillow's `convert("RGB")`. An EXIF rotation is not applied.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from agd_core.basics.errors import InputError, first_line
from storage.sources.images import StoredImage

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Names of image files end so, in small or capital letters."""
_FORMATS = ("PNG", "JPEG", "WEBP")
_STEPS = {
    **dict.fromkeys(("1", "L", "LA"), ("L",)),
    **dict.fromkeys(("P", "PA"), ("RGBA", "RGB")),
    **dict.fromkeys(("RGB", "RGBA", "RGBX", "CMYK", "YCbCr"), ("RGB",)),
}
"""What an image of each of Pillow's modes is converted to, one after another; a palette may have alpha."""
MOST_BYTES = 256 << 20
"""A larger file is no image."""
MOST_PIXELS = 89_478_485
"""Pillow's own limit; an image with more could be a decompression bomb."""


@dataclass(frozen=True)
class EncodedImage(StoredImage):
    """A PNG, JPEG or WebP file's bytes."""

    name: str
    data: bytes

    def content(self) -> bytes:
        """The file's bytes."""
        return self.data

    def size(self) -> tuple[int, int]:
        """As the file's first bytes say."""
        with warnings.catch_warnings():  # Pillow only warns of images between one and two times its limit
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with self._opened() as image:
                return image.size

    def pixels(self, crop: int | None) -> np.ndarray:
        """Decoded."""
        with self._opened() as image:
            picture = self._converted(image)
        return _as_array(picture if crop is None else cropped(picture, crop, self.name))

    @contextmanager
    def _opened(self) -> Iterator[Image.Image]:
        try:
            with Image.open(io.BytesIO(self.data), formats=_FORMATS) as image:
                yield image
        except InputError:
            raise
        except Exception as error:  # a decoder may raise anything over broken bytes
            # Pillow names the buffer that it was given
            reason = "another format" if isinstance(error, UnidentifiedImageError) else first_line(error)
            raise InputError(f"{self.name} is no image that can be decoded (PNG, JPEG, WebP): {reason}") from error

    def _converted(self, image: Image.Image) -> Image.Image:
        if image.mode not in _STEPS:
            raise InputError(f"{self.name} has pixels of type {image.mode}; allowed are images of 8 bits per channel")
        return reduce(Image.Image.convert, _STEPS[image.mode], image)


@dataclass(frozen=True)
class PixelImage(StoredImage):
    """Pixels that were never encoded, uint8 `[height, width, 1 or 3]`."""

    name: str
    array: np.ndarray

    def content(self) -> bytes:
        """Shape and pixels."""
        return f"{self.array.shape}".encode() + self.array.tobytes()

    def size(self) -> tuple[int, int]:
        """Of the array."""
        return self.array.shape[1], self.array.shape[0]

    def pixels(self, crop: int | None) -> np.ndarray:
        """As they are, or cropped."""
        if crop is None:
            return self.array
        grey = self.array.shape[-1] == 1
        return _as_array(cropped(Image.fromarray(self.array[..., 0] if grey else self.array), crop, self.name))


def cropped(image: Image.Image, size: int, name: str) -> Image.Image:
    """The short side resized to `size` with Pillow's antialiased bilinear filter, then the centre `size` x `size`.

    The same as torchvision's `Resize(size)` and `CenterCrop(size)` on a Pillow image, which is what torch-fidelity's
    `samples_resize_and_crop` does (https://github.com/toshas/torch-fidelity): the long side is rounded down, the
    centre to the nearest pixel.

    Raises:
        InputError: so long an image that its long side would get too many pixels.
    """
    short = min(image.size)
    width, height = (size if side == short else int(size * side / short) for side in image.size)
    if width * height > MOST_PIXELS:
        sides = f"{image.size[0]} x {image.size[1]}"
        raise InputError(f"{name} has {sides} pixels, too long to be cropped to {size} x {size}")
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def read_bounded(file: BinaryIO, name: str, most: int = MOST_BYTES) -> bytes:
    """A whole file or member.

    Raises:
        InputError: it has more bytes than `most`.
    """
    data = file.read(most + 1)
    if len(data) > most:
        raise InputError(f"{name} is larger than {most >> 20} MB")
    return data


def _as_array(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array
