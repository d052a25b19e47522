"""All emoji in memory: parts by split, and columns that do not fit."""

import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.pretraining.emoji.images import EmojiImages


def images(splits=("train", "held-out", "train", "sibling"), names=("a", "b", "c", "d")):
    pixels = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 2, 2, 3)
    return EmojiImages(pixels, names, ("s",) * 4, splits, ("",) * 4, torch.tensor([True, True, False, False]))


def test_parts_keep_rows_together():
    part = images().of("train", "sibling")
    assert part.names == ("a", "c", "d")
    assert part.pixels[:, 0, 0, 0].tolist() == [0, 2, 3]
    assert images().of("train", common_only=True).names == ("a",)
    assert len(images().of("sibling", common_only=True)) == 0


def test_columns_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="4 emoji need as many"):
        images(names=("a",))
    with pytest.raises(InputError, match="split 'test' is unknown; allowed are train, held-out, sibling"):
        images(splits=("test",) * 4)
