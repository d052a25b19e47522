import gzip
import os
import struct

import numpy as np
import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.builtin.fashion_mnist import CLASS_NAMES, load_fashion_mnist, to_signed

PIXELS = (np.arange(3 * 28 * 28) % 256).astype(np.uint8).reshape(3, 28, 28)
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def write_idx(path, magic, array):
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes())


@pytest.fixture
def folder(tmp_path):
    for prefix, labels in (("train", [9, 0, 4]), ("t10k", [1, 1, 2])):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", 2051, PIXELS)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", 2049, np.array(labels, np.uint8))
    return tmp_path


def test_images_are_padded_with_black_and_keep_their_pixels(folder):
    images, _ = load_fashion_mnist("train", folder)
    assert images.shape == (3, 1, 32, 32)
    assert images.dtype == torch.uint8
    assert np.array_equal(images[:, 0, 2:30, 2:30].numpy(), PIXELS)
    assert int(images.sum()) == int(PIXELS.sum())


@pytest.mark.parametrize(("split", "expected"), [("train", [9, 0, 4]), ("test", [1, 1, 2])])
def test_labels_come_from_their_split(folder, split, expected):
    _, labels = load_fashion_mnist(split, folder)
    assert labels.dtype == torch.int64
    assert labels.tolist() == expected


def test_there_is_a_name_for_every_label():
    assert len(set(CLASS_NAMES)) == 10


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        load_fashion_mnist("train", folder)


def test_a_file_with_another_magic_number_is_named(folder):
    write_idx(folder / IMAGES, 2052, PIXELS)
    with pytest.raises(InputError, match=f"{IMAGES} is no intact idx file: magic number 2052, expected 2051"):
        load_fashion_mnist("train", folder)


def test_images_and_labels_that_are_swapped_are_refused(folder):
    write_idx(folder / LABELS, 2051, PIXELS)
    with pytest.raises(InputError, match=LABELS):
        load_fashion_mnist("train", folder)


DAMAGED = {
    "not compressed": b"\x00\x00\x08\x03 plain bytes",
    "empty": gzip.compress(b""),
    "header cut": gzip.compress(struct.pack(">2I", 2051, 3)),
    "pixels cut": gzip.compress(struct.pack(">4I", 2051, 3, 28, 28) + bytes(100)),
    "download cut": gzip.compress(struct.pack(">4I", 2051, 3, 28, 28) + PIXELS.tobytes())[:200],
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_named(folder, damage):
    (folder / IMAGES).write_bytes(DAMAGED[damage])
    with pytest.raises(InputError, match=IMAGES):
        load_fashion_mnist("train", folder)


def test_signed_images_span_minus_one_to_one():
    signed = to_signed(torch.tensor([0, 255], dtype=torch.uint8))
    assert signed.dtype == torch.float32
    assert signed.tolist() == [-1.0, 1.0]


def test_a_file_unpacks_up_to_the_size_of_the_data_set(folder, monkeypatch):
    monkeypatch.setattr("agd_core.builtin.fashion_mnist.MOST_BYTES", PIXELS.nbytes)
    with pytest.raises(InputError, match=f"{IMAGES} is no intact idx file: it unpacks to more than 2,352 bytes"):
        load_fashion_mnist("train", folder)


def test_a_pipe_is_no_file_of_images(folder):
    (folder / IMAGES).unlink()
    os.mkfifo(folder / IMAGES)
    with pytest.raises(InputError, match=f"{IMAGES} is no regular file but a named pipe"):
        load_fashion_mnist("train", folder)
