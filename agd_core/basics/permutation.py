"""Shuffles of a range of integers that need no memory and can be asked at any position, both ways; numpy only.

A Feistel permutation. Both the network on a domain of a * b values and the cycle walking are from Black and Rogaway,
"Ciphers with Arbitrary Finite Domains" (CT-RSA 2002).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from agd_core.basics.errors import InputError

_ROUNDS = 8
"""Even. From 8 on, every order of 3 and of 4 values is equally frequent over the keys (tested)."""

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_STEPS = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST_SHIFT = np.uint64(31)
"""SplitMix64's constants (https://prng.di.unimi.it/splitmix64.c, public domain)."""
_ONE = np.uint64(1)


@dataclass(frozen=True)
class Permutation:
    """A shuffle of `[0, size)` that can be asked at any position, both ways, with O(1) memory.

    A value is split into (value // columns, value % columns). Each round adds a hash of one part to the other, modulo
    its range, which is undone by subtracting. The table has a few cells more than `size`: a value that lands
    on one of those is sent through again until it does not.
    """

    size: int
    key: int
    """In `[0, 2**64)`; each key is another shuffle."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"cannot shuffle {self.size} values; at least 1 is needed")

    def forward(self, positions: np.ndarray) -> np.ndarray:
        """The values at these positions, int64 `[n]` to int64 `[n]`.

        Raises:
            IndexError: a position outside `[0, size)`.
        """
        return self._walk(positions, self._encrypt)

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """The positions of these values, int64 `[n]` to int64 `[n]`.

        Raises:
            IndexError: a value outside `[0, size)`.
        """
        return self._walk(values, self._decrypt)

    @cached_property
    def _table(self) -> tuple[np.uint64, np.uint64]:
        """Rows and columns, nearly equal: their product exceeds `size` by less than one row."""
        rows = math.isqrt(self.size - 1) + 1
        return np.uint64(rows), np.uint64(-(-self.size // rows))

    @cached_property
    def _round_keys(self) -> np.ndarray:
        """uint64 `[rounds / 2, 2]`: the first outputs of SplitMix64 seeded with the key."""
        counter = np.arange(1, _ROUNDS + 1, dtype=np.uint64) * _GOLDEN_GAMMA
        return _mix(counter + np.uint64(self.key)).reshape(-1, 2)

    def _walk(self, values: np.ndarray, once: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        if values.size and (values.min() < 0 or values.max() >= self.size):
            raise IndexError(f"indices {values.min()}..{values.max()} are not all in [0, {self.size})")
        walked = once(values.astype(np.uint64))
        while (outside := np.flatnonzero(walked >= self.size)).size:
            walked[outside] = once(walked[outside])
        return walked.astype(np.int64)

    def _encrypt(self, values: np.ndarray) -> np.ndarray:
        rows, columns = self._table
        row, column = np.divmod(values, columns)
        for row_key, column_key in self._round_keys:
            row = (row + _hash(column + row_key)) % rows
            column = (column + _hash(row + column_key)) % columns
        return row * columns + column

    def _decrypt(self, values: np.ndarray) -> np.ndarray:
        rows, columns = self._table
        row, column = np.divmod(values, columns)
        for row_key, column_key in self._round_keys[::-1]:
            column = (column + columns - _hash(row + column_key) % columns) % columns
            row = (row + rows - _hash(column + row_key) % rows) % rows
        return row * columns + column


def _mix(values: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64, uint64 to uint64."""
    for shift, factor in _MIX_STEPS:
        values = values ^ (values >> shift)
        values *= factor
    values ^= values >> _LAST_SHIFT
    return values


def _hash(values: np.ndarray) -> np.ndarray:
    """63 bits, so that adding a row or a column number cannot overflow."""
    hashed = _mix(values)
    hashed >>= _ONE
    return hashed
