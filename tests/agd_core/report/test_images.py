import io

import numpy as np
import pytest
import torch
from PIL import Image

from agd_core.report.images import grid_png


def images(count, channels, height=3, width=4):
    return (torch.arange(count * height * width * channels) % 250).to(torch.uint8).view(count, height, width, channels)


def decoded(png):
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("count", "columns"), [(1, 1), (6, 3), (5, 3), (2, 4)])
def test_every_image_is_in_its_cell_and_all_else_is_white(count, columns, channels):
    batch, rows = images(count, channels), -(-count // columns)
    expected = np.full((rows * 4 - 1, columns * 5 - 1, 3), 255, np.uint8)
    for index, image in enumerate(batch.numpy()):
        top, left = index // columns * 4, index % columns * 5
        expected[top : top + 3, left : left + 4] = image
    assert np.array_equal(decoded(grid_png(batch, columns, enlarge=1)), expected)


@pytest.mark.parametrize("enlarge", [2, 5])
def test_enlarging_repeats_pixels_without_smoothing(enlarge):
    plain = decoded(grid_png(images(4, 1), 2, enlarge=1))
    expected = plain.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    assert np.array_equal(decoded(grid_png(images(4, 1), 2, enlarge=enlarge)), expected)


def test_images_that_are_views_are_drawn_as_they_look():
    channels_first = images(2, 3).permute(0, 3, 1, 2).contiguous()
    assert grid_png(channels_first.permute(0, 2, 3, 1), 2) == grid_png(images(2, 3), 2)


def test_it_is_a_png_and_the_same_every_time():
    png = grid_png(images(3, 1), 2)
    assert png.startswith(b"\x89PNG\r\n")
    assert grid_png(images(3, 1), 2) == png
