"""The captions of all pictures as tokens, so that a training step draws its own without a loop over pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

EMPTY = 0
"""The row of the empty prompt."""


@dataclass(frozen=True)
class CaptionTokens:
    """Every caption that a picture may have."""

    tokens: Int64[Tensor, "captions length"]
    """Row 0 is the empty prompt; the captions of picture i are the rows from `first[i]` on, its plain one first."""
    first: Int64[Tensor, " images"]
    count: Int64[Tensor, " images"]

    @classmethod
    def of(cls, tokenizer: Any, captions: Sequence[Sequence[str]]) -> "CaptionTokens":
        """Tokenize the captions of every picture, padded to the length that the stock pipeline pads prompts to."""
        texts = ["", *(text for each in captions for text in each)]
        length = tokenizer.model_max_length
        encoded = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        counts = [len(each) for each in captions]
        first = list(accumulate(counts[:-1], initial=EMPTY + 1))
        return cls(encoded.input_ids, torch.tensor(first), torch.tensor(counts))

    def rows(self, rows: Int64[Tensor, " chosen"]) -> "CaptionTokens":
        """The captions of the pictures of these numbers."""
        return CaptionTokens(self.tokens, self.first[rows], self.count[rows])

    def draw(
        self, rows: Int64[Tensor, " batch"], plain: float, dropped: float, rng: torch.Generator
    ) -> Int64[Tensor, "batch length"]:
        """A caption for each of some pictures.

        Args:
            rows: numbers of the pictures.
            plain: how often it is the plain one for sure; else it is any of them.
            dropped: how often it is the empty prompt.
            rng: on the CPU.
        """
        is_plain, choice, is_dropped = torch.rand(3, len(rows), generator=rng)
        counts = self.count[rows]
        among = torch.minimum((choice * counts).long(), counts - 1)
        chosen = self.first[rows] + torch.where(is_plain < plain, 0, among)
        return self.tokens[torch.where(is_dropped < dropped, EMPTY, chosen)]
