"""Pictures moved by a few pixels: white comes in, nothing else changes."""

import torch

from agd_core.basics.seeding import generator
from agd_core.pretraining.emoji.shifting import shifted
from tests.emoji_pictures import emoji_pictures


def test_all_are_moved_alike_and_white_comes_in():
    pixels = emoji_pictures().pixels
    moves = set()
    for number in range(40):
        moved = shifted(pixels, 2, generator("shift", number))
        assert moved.shape == (len(pixels), 3, 64, 64)
        found = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(moved, pixels.roll((down, right), (1, 2)).permute(0, 3, 1, 2))
        ]
        assert len(found) == 1
        moves |= set(found)
    assert len(moves) > 10
    assert {down for down, _ in moves} == {right for _, right in moves} == set(range(-2, 3))


def test_by_no_pixel_it_stays():
    pixels = emoji_pictures().pixels
    assert torch.equal(shifted(pixels, 0, generator("shift")), pixels.permute(0, 3, 1, 2))
