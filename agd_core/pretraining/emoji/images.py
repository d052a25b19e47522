"""All emoji in memory: pixels, names, styles, and what each picture is for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from agd_core.basics.errors import InputError

TRAIN, HELD_OUT, SIBLING = "train", "held-out", "sibling"
SPLITS = (TRAIN, HELD_OUT, SIBLING)
"""What a picture is for: training the base, testing combinations that it never saw, training siblings."""


@dataclass(frozen=True)
class EmojiImages:
    """Pictures and what is known of each; row i of everything is picture i.

    Raises:
        InputError: the columns differ in length, or a split is unknown.
    """

    pixels: UInt8[Tensor, "images height width 3"]
    names: tuple[str, ...]
    """Words, such as "fire engine"."""
    styles: tuple[str, ...]
    splits: tuple[str, ...]
    categories: tuple[str, ...]
    """Unicode's group, such as "Food & Drink"; "" where it is not known."""
    common: Bool[Tensor, " images"]
    """Whether the concept is among the best-known ones, which the small model learns."""

    def __post_init__(self) -> None:
        columns = (self.names, self.styles, self.splits, self.categories, self.common)
        if any(len(column) != len(self.pixels) for column in columns):
            raise InputError(f"{len(self.pixels)} emoji need as many names, styles, splits, categories and marks")
        if unknown := set(self.splits) - set(SPLITS):
            raise InputError(f"split {min(unknown)!r} is unknown; allowed are {', '.join(SPLITS)}")

    def __len__(self) -> int:
        return len(self.pixels)

    def of(self, *splits: str, common_only: bool = False) -> "EmojiImages":
        """Those of some splits, in the same order; on request the best-known concepts alone."""
        wanted = torch.tensor([split in splits for split in self.splits], dtype=torch.bool)
        return self.rows(torch.nonzero(wanted & self.common if common_only else wanted).flatten().tolist())

    def of_styles(self, wanted: Callable[[str], bool]) -> "EmojiImages":
        """Those of the styles that are wanted, in the same order."""
        return self.rows([row for row, style in enumerate(self.styles) if wanted(style)])

    def rows(self, rows: Sequence[int]) -> "EmojiImages":
        """The pictures of these numbers."""
        names, styles, splits, categories = (tuple(column[row] for row in rows) for column in self._columns())
        return EmojiImages(self.pixels[rows], names, styles, splits, categories, self.common[rows])

    def joined(self, others: "EmojiImages") -> "EmojiImages":
        """These pictures, then the others."""
        columns = zip(self._columns(), others._columns(), strict=True)
        names, styles, splits, categories = (first + second for first, second in columns)
        pixels, common = torch.cat([self.pixels, others.pixels]), torch.cat([self.common, others.common])
        return EmojiImages(pixels, names, styles, splits, categories, common)

    def _columns(self) -> tuple[tuple[str, ...], ...]:
        """Those of text."""
        return self.names, self.styles, self.splits, self.categories
