"""Real images for tests: the first 300 of either split of Fashion-MNIST, shipped in `tests/data/fashion-mnist`."""

from pathlib import Path

from agd_core.builtin.fashion_mnist import load_fashion_mnist

FOLDER = Path(__file__).parent / "data" / "fashion-mnist"
COUNT = 300


def real_images(split, count=COUNT):
    """uint8 `[count, 32, 32, 1]` and int64 `[count]`, tensors that the caller may change."""
    images, labels = load_fashion_mnist(split, FOLDER)
    return images[:count].permute(0, 2, 3, 1), labels[:count]
