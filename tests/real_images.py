"""Real images for tests: the first 300 of either split of Fashion-MNIST, shipped in `tests/data/fashion-mnist`."""

from pathlib import Path

from agd_core.builtin.fashion_mnist import CLASS_NAMES, load_fashion_mnist
from tests.storage.sources.image_files import encoded

FOLDER = Path(__file__).parent / "data" / "fashion-mnist"
COUNT = 300


def real_images(split, count=COUNT):
    """uint8 `[count, 32, 32, 1]` and int64 `[count]`, tensors that the caller may change."""
    images, labels = load_fashion_mnist(split, FOLDER)
    return images[:count].permute(0, 2, 3, 1), labels[:count]


def write_pictures(root, each=2):
    """Some real images of every class as PNG files, in folders that are named as the classes."""
    images, labels = real_images("train")
    for label, name in enumerate(CLASS_NAMES):
        (root / name).mkdir(parents=True)
        for number in (labels == label).nonzero().flatten()[:each].tolist():
            (root / name / f"{number}.png").write_bytes(encoded(images[number].numpy()))
    return root
