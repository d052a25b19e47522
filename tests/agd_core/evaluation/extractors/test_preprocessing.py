import numpy as np
import pytest
import torch
from PIL import Image

from agd_core.basics.errors import InputError
from agd_core.evaluation.extractors.preprocessing import apply_in_batches, normalised, planes, resized


@pytest.mark.parametrize("size", [(224, 224), (20, 30)], ids=["enlarged", "reduced"])
def test_resizing_is_that_of_pillow(photo, size):
    height, width = size
    piece = photo[100:164, 100:148]
    ours = resized(planes(piece[None]), height, width)[0].permute(1, 2, 0)
    pillow = np.array(Image.fromarray(piece.numpy()).resize((width, height), Image.Resampling.BICUBIC))
    difference = (ours.int() - torch.from_numpy(pillow).int()).abs()
    assert difference.max() <= 2
    assert difference.float().mean() < 0.25


def test_one_channel_becomes_three_equal_planes():
    images = torch.arange(32, dtype=torch.uint8).reshape(2, 4, 4, 1)
    assert torch.equal(planes(images), images.expand(-1, -1, -1, 3).permute(0, 3, 1, 2))


def test_four_channels_are_refused():
    with pytest.raises(InputError, match="images have 4 channels; allowed are 1 and 3"):
        planes(torch.zeros(1, 2, 2, 4, dtype=torch.uint8))


def test_normalisation_is_that_of_unit_range():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    result = normalised(images, mean=(0.5, 0.5, 0.0), std=(0.5, 0.1, 1.0)).flatten()
    torch.testing.assert_close(result, torch.tensor([-1.0, -3.0, 1.0]))


def test_every_batch_has_the_same_size_and_every_row_comes_back_once(cpu):
    seen = []

    def network(batch):
        seen.append(len(batch))
        return batch * 2, batch.sum(dim=1, keepdim=True)

    rows = torch.randn(21, 3)
    doubled, total = apply_in_batches(network, rows, cpu)
    assert torch.equal(doubled, rows * 2)
    assert torch.equal(total, rows.sum(dim=1, keepdim=True))
    assert set(seen) == {8}
