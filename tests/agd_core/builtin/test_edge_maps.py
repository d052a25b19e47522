"""Edge maps: lines where colours change, none in plain areas, the same for one picture or many."""

import numpy as np
import pytest
import torch
from PIL import Image

from agd_core.builtin.edge_maps import THRESHOLD, edge_image, edge_maps
from tests.emoji_pictures import emoji_pictures


@pytest.fixture(scope="module")
def pixels():
    return emoji_pictures().pixels


def test_a_square_gives_its_outline_alone(pixels):
    edges = edge_maps(pixels[:1])
    assert edges.shape == (1, 3, 64, 64)
    assert set(edges.unique().tolist()) == {0.0, 1.0}
    across = edges[0, 0, 32].nonzero().flatten().tolist()
    assert across == [11, 12, 51, 52]


def test_colours_of_one_brightness_have_an_edge_between_them():
    pixels = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    pixels[:, :, :4, 0] = 200
    pixels[:, :, 4:, 1] = 200
    assert edge_maps(pixels)[0, 0, 4].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


@pytest.mark.parametrize(("step", "is_edge"), [(255 * THRESHOLD + 2, True), (255 * THRESHOLD - 2, False)])
def test_a_change_counts_from_a_fifth_of_the_range_on(step, is_edge):
    pixels = torch.full((1, 8, 8, 3), 100, dtype=torch.uint8)
    pixels[:, :, 4:] += int(step)
    assert bool(edge_maps(pixels).any()) == is_edge


def test_a_picture_alone_or_among_others_has_the_same_edges(pixels):
    together = edge_maps(pixels)
    assert all(torch.equal(edge_maps(pixels[row : row + 1])[0], together[row]) for row in range(len(pixels)))


def test_a_picture_of_pillow_gives_the_same(pixels):
    found = edge_image(Image.fromarray(pixels[0].numpy()))
    assert found.mode == "RGB"
    assert np.array_equal(np.array(found) / 255, edge_maps(pixels[:1])[0].permute(1, 2, 0).numpy())
