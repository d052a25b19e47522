"""Which cases of a test run in every suite, and which in `make soak` alone."""

from collections.abc import Iterable
from typing import Any

import pytest

SOAK = pytest.mark.soak


def short(cases: Iterable[Any], keep: Iterable[int] = (0,), several: bool = False) -> list[Any]:
    """The cases for `parametrize`, all but the kept ones marked as soak.

    Args:
        cases: one value each, or with `several` a tuple of one value per argument.
        keep: places of the cases that the suite runs too; they must stand for the others.
        several: whether each case is for several arguments.
    """
    kept = set(keep)
    return [
        pytest.param(*(case if several else (case,)), marks=() if place in kept else SOAK)
        for place, case in enumerate(cases)
    ]
