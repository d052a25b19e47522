"""Ink drawings: white stays paper, edges become lines, dark areas a wash, and no other colour is left."""

import torch

from agd_core.pretraining.emoji.ink import ink_drawing
from tests.emoji_pictures import emoji_pictures

PAPER, INK = torch.tensor([255.0, 255, 255]), torch.tensor([26.0, 32, 66])


def test_white_is_paper_edges_are_lines_and_areas_a_wash():
    drawn = ink_drawing(emoji_pictures().pixels).float()
    assert (drawn[:, :8] == PAPER).all()
    assert (drawn[:, 32, 12] == INK).any(dim=0).all()
    red, _, black = drawn[0, 32, 32], drawn[2, 32, 32], drawn[6, 32, 32]
    assert (black > INK).all()
    assert (black < red).all()
    assert (red < PAPER).all()


def test_every_pixel_lies_between_paper_and_ink():
    drawn = ink_drawing(torch.randint(0, 256, (2, 16, 16, 3), dtype=torch.uint8)).float()
    amount = (PAPER - drawn) / (PAPER - INK)
    assert ((amount - amount[..., :1]).abs() < 0.01).all()
    assert (amount > -0.01).all()
    assert (amount < 1.01).all()


def test_it_draws_a_picture_whatever_others_there_are():
    pixels = emoji_pictures().pixels
    assert ink_drawing(pixels)[3:4].equal(ink_drawing(pixels[3:4]))
