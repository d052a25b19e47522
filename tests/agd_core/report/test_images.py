import io

import numpy as np
import pytest
import torch
from PIL import Image

from agd_core.report.images import comparison_png, grid_png


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


def ink(png, rows):
    """Whether something dark stands in these rows of pixels."""
    return bool((decoded(png)[rows] < 100).any())


def white(count):
    return torch.full((count, 64, 64, 3), 255, dtype=torch.uint8)


def test_captions_stand_under_their_images_and_move_none():
    batch = images(4, 3, 64, 64)
    plain, told = decoded(grid_png(batch, 2)), decoded(grid_png(batch, 2, captions=["one", "", "three", "four"]))
    assert told.shape[1] == plain.shape[1]
    below = (told.shape[0] - plain.shape[0]) // 2
    assert np.array_equal(told[:128], plain[:128])
    assert np.array_equal(told[130 + below : 258 + below], plain[130:])
    assert (told[128 : 128 + below, :128] < 100).any()
    assert (told[128 : 128 + below, 130:] == 255).all()


@pytest.mark.parametrize("caption", ["word " * 50, "w" * 500, "a " + "w" * 60 + " b", "é 漢 \U0001f600", " "])
def test_a_caption_stays_under_its_own_image(caption):
    told = decoded(grid_png(white(2), 2, captions=[caption, ""]))
    assert (told[:, 132:] == 255).all()
    assert (told[:128] == 255).all()


def test_a_caption_that_is_cut_says_so():
    cut, whole = (grid_png(white(1), 1, captions=[text]) for text in ("w" * 500, "w" * 5))
    assert cut == grid_png(white(1), 1, captions=["w" * 600]) != whole
    assert grid_png(white(1), 1, captions=["w " * 40]) != grid_png(white(1), 1, captions=["w " * 20])


def test_methods_stand_under_their_names_and_subjects_under_the_last():
    batch = images(3, 3, 64, 64)
    told = decoded(comparison_png([("no guidance", batch), ("CFG", batch)], ["a", "b", "c"], enlarge=1))
    strip = decoded(grid_png(batch, 3, enlarge=1))
    starts = [top for top in range(len(told) - 64) if np.array_equal(told[top : top + 64], strip)]
    assert len(starts) == 2
    title = starts[0]
    assert starts[1] == 2 * title + 64
    assert ink(comparison_png([("CFG", white(3))], ["", "", ""], enlarge=1), slice(0, title))
    assert (told[starts[1] + 64 :] < 100).any()
