"""Fashion-MNIST, the real images behind the built-in world.

Source: https://github.com/zalandoresearch/fashion-mnist (MIT licence); Debian ships the four idx
files in the package `dataset-fashion-mnist`. idx format: http://yann.lecun.com/exdb/mnist/.
"""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import open_regular

CLASS_NAMES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DEFAULT_FOLDER = Path("/usr/share/datasets/fashion-mnist")
MOST_BYTES = 64 << 20
"""Of one file, unpacked; the largest of the four has 47 MB."""
_PADDING = 2
_PREFIXES = {"train": "train", "test": "t10k"}
Split = Literal["train", "test"]


def idx_files(split: Split, folder: Path = DEFAULT_FOLDER) -> tuple[Path, Path]:
    """The files of a split's images and labels."""
    prefix = folder / _PREFIXES[split]
    return Path(f"{prefix}-images-idx3-ubyte.gz"), Path(f"{prefix}-labels-idx1-ubyte.gz")


def load_fashion_mnist(split: Split, folder: Path = DEFAULT_FOLDER) -> tuple[Tensor, Tensor]:
    """Read one split.

    Returns:
        images: uint8 `[N, 1, 32, 32]`, the 28x28 originals with 2 black pixels around.
        labels: int64 `[N]`, indices into `CLASS_NAMES`.

    Raises:
        InputError: a file is missing or is not an idx file.
    """
    files = idx_files(split, folder)
    images = _read_idx(files[0], magic=2051)  # [N, 28, 28]
    labels = _read_idx(files[1], magic=2049)  # [N]
    padded = np.pad(images, ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING)))
    return torch.from_numpy(padded)[:, None], torch.from_numpy(labels.astype(np.int64))


def to_signed(images: Tensor) -> Tensor:
    """uint8 [0, 255] -> float32 [-1, 1]."""
    return images.float() / 127.5 - 1.0


def _read_idx(path: Path, magic: int) -> np.ndarray:
    if not path.exists():
        raise InputError(
            f"Fashion-MNIST file {path} is missing; install the Debian package dataset-fashion-mnist "
            "or name a folder that holds its four idx files"
        )
    try:
        with open_regular(path) as packed, gzip.open(packed) as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
        return _parse_idx(raw, magic)
    except InputError:
        raise
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise InputError(f"{path} is no intact idx file: {error}") from error


def _parse_idx(raw: bytes, magic: int) -> np.ndarray:
    (found,) = struct.unpack(">I", raw[:4])
    if found != magic:
        raise ValueError(f"magic number {found}, expected {magic}")
    axes = found & 0xFF
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)
