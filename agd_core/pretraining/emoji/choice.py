"""Which pictures are learnt: the best-known concepts, by a rule, and the pairs that are held out."""

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np

from agd_core.basics.errors import InputError
from agd_core.basics.permutation import Permutation
from agd_core.basics.seeding import derive_seed

HELD_OUT = 300
"""Pairs of concept and style that are never trained on."""
_FEWEST_STYLES = 5
_THINGS = (
    "Activities",
    "Animals & Nature",
    "Food & Drink",
    "Objects",
    "Smileys & Emotion",
    "Travel & Places",
)
"""Unicode's groups but for People & Body, which are mostly gestures and trades in two sexes, Symbols, which are mostly
letters, keycaps and arrows, and Flags."""
_CLOCK_FACES = ("oclock", "thirty")

Pair = tuple[str, str]
"""A key and a style."""


def common_keys(styles: Mapping[str, Collection[str]], categories: Mapping[str, str]) -> frozenset[str]:
    """The keys of the best-known concepts: drawn in at least five styles, things, and no clock faces.

    Args:
        styles: the keys of every base style.
        categories: group of a key.
    """
    counts = Counter(key for keys in styles.values() for key in keys)
    return frozenset(
        key
        for key, count in counts.items()
        if count >= _FEWEST_STYLES and categories.get(key) in _THINGS and not key.endswith(_CLOCK_FACES)
    )


def held_out_pairs(pairs: Collection[Pair], count: int, seed: int) -> frozenset[Pair]:
    """Pairs for a test of new combinations: at most one per concept, so the other styles show the concept in training.

    Args:
        pairs: those to choose from.
        count: how many.
        seed: of the choice.

    Raises:
        InputError: there are too few concepts.
    """
    styles: dict[str, list[str]] = {}
    for key, style in sorted(pairs):
        styles.setdefault(key, []).append(style)
    shared = [key for key, found in styles.items() if len(found) > 1]
    if len(shared) < count:
        raise InputError(f"{count} pairs cannot be held out: only {len(shared)} names have several styles")
    order = Permutation(len(shared), derive_seed(seed, "held-out names")).forward(np.arange(count))
    chosen = [shared[number] for number in order]
    return frozenset((key, _one_of(styles[key], derive_seed(seed, "held-out style", key))) for key in chosen)


def _one_of(styles: list[str], seed: int) -> str:
    return styles[seed % len(styles)]
