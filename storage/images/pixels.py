"""From an encoded image to pixels, and the crop.

Grey images (1 bit, 8 bits, with alpha) become one channel; palettes, RGBA, CMYK and YCbCr become RGB. Alpha is
dropped: what shows is the colour stored below it, as in Pillow's `convert("RGB")`. An EXIF rotation is not applied.
"""

import io
from dataclasses import dataclass
from functools import reduce
from typing import BinaryIO

import numpy as np
from PIL import Image

from storage.images.base import StoredImage
from storage.images.problems import ImageProblem

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


@dataclass(frozen=True)
class EncodedImage(StoredImage):
    """A PNG, JPEG or WebP file's bytes."""

    name: str
    data: bytes

    def content(self) -> bytes:
        """The file's bytes."""
        return self.data

    def pixels(self, crop: int | None) -> np.ndarray:
        """Decoded."""
        try:
            with Image.open(io.BytesIO(self.data), formats=_FORMATS) as image:
                picture = self._converted(image)
        except ImageProblem:
            raise
        except Exception as error:  # a decoder may raise anything over broken bytes
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ImageProblem(f"{self.name} is no image that can be decoded (PNG, JPEG, WebP): {reason}") from error
        return _as_array(picture if crop is None else cropped(picture, crop))

    def _converted(self, image: Image.Image) -> Image.Image:
        if image.mode not in _STEPS:
            raise ImageProblem(f"{self.name} has pixels of type {image.mode}; allowed are images of 8 bits per channel")
        return reduce(Image.Image.convert, _STEPS[image.mode], image)


@dataclass(frozen=True)
class PixelImage(StoredImage):
    """Pixels that were never encoded, uint8 `[height, width, 1 or 3]`."""

    name: str
    array: np.ndarray

    def content(self) -> bytes:
        """Shape and pixels."""
        return f"{self.array.shape}".encode() + self.array.tobytes()

    def pixels(self, crop: int | None) -> np.ndarray:
        """As they are, or cropped."""
        if crop is None:
            return self.array
        grey = self.array.shape[-1] == 1
        return _as_array(cropped(Image.fromarray(self.array[..., 0] if grey else self.array), crop))


def cropped(image: Image.Image, size: int) -> Image.Image:
    """The short side resized to `size` with Pillow's antialiased bilinear filter, then the centre `size` x `size`.

    The same as torchvision's `Resize(size)` and `CenterCrop(size)` on a Pillow image, which is what torch-fidelity's
    `samples_resize_and_crop` does (https://github.com/toshas/torch-fidelity): the long side is rounded down, the
    centre to the nearest pixel.
    """
    short = min(image.size)
    width, height = (size if side == short else int(size * side / short) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return resized.crop((left, top, left + size, top + size))


def read_bounded(file: BinaryIO, name: str, most: int = MOST_BYTES) -> bytes:
    """A whole file or member.

    Raises:
        ImageProblem: it has more bytes than `most`.
    """
    data = file.read(most + 1)
    if len(data) > most:
        raise ImageProblem(f"{name} is larger than {most >> 20} MB")
    return data


def _as_array(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array
