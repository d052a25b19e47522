"""Real images that are known by name: those that a built-in model was trained on."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from agd_core.builtin.fashion_mnist import CLASS_NAMES, idx_files, load_fashion_mnist
from storage.sources import ImageSource
from storage.sources.kinds import Shown
from storage.sources.pixels import PixelImage

FASHION_MNIST = "builtin:fashion-mnist"


def open_builtin_images(name: str) -> "FashionMnist":
    """The images of this name.

    Raises:
        InputError: there are none.
    """
    if name != FASHION_MNIST:
        raise InputError(f"unknown built-in images {printable(name)}; known: {FASHION_MNIST}")
    return FashionMnist()


class FashionMnist(ImageSource):
    """The 60,000 training images, with the black border around them that `builtin:fashion-dit` learnt.

    Raises:
        InputError: Debian's package is not installed.
    """

    place = FASHION_MNIST

    @cached_property
    def _loaded(self) -> tuple[Tensor, Tensor]:
        return load_fashion_mnist("train")

    def __len__(self) -> int:
        return len(self._loaded[1])

    def files(self) -> tuple[Path, ...]:
        """Images and labels."""
        return idx_files("train")

    def images(self) -> Iterator[PixelImage]:
        """Grey images of 32 x 32 pixels."""
        for number, image in enumerate(self._loaded[0].numpy()):
            yield PixelImage(f"{self.place}[{number}]", image.transpose(1, 2, 0))

    def shown(self, shown: Shown) -> tuple[str, ...]:
        """The class of every image by name."""
        if shown != "labels":
            raise InputError(f"{self.place} tells no {shown} of its images; it has labels")
        return tuple(CLASS_NAMES[label] for label in self._loaded[1].tolist())
