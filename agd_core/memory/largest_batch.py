"""The largest batch that fits, in few tries."""

from collections.abc import Callable

_GROWTH = 16
"""A try goes no further than this factor beyond what fits: below some batch the optimizer's step is the peak."""


def largest_batch(peak_of: Callable[[int], int], limit_bytes: int, most: int = 4096, known: int = 2) -> int:
    """The largest batch whose peak is within the limit, 0 where not even one fits.

    Args:
        peak_of: batch -> bytes; never falling, and nearly straight in the batch. Asked again for what it told before.
        limit_bytes: what there is.
        most: no larger batch is tried.
        known: a batch to begin with, beside 1.
    """
    if peak_of(1) > limit_bytes:
        return 0
    low, high, guess = 1, most + 1, min(max(known, 2), most)
    while high - low > 1:
        found, slope = peak_of(guess), max(1, (peak_of(guess) - peak_of(low)) // (guess - low))
        low, high = (guess, high) if found <= limit_bytes else (low, guess)
        reach = low + (limit_bytes - peak_of(low)) // slope
        guess = min(max(reach, low + 1), high - 1, _GROWTH * low)
    return low
