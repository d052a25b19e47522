"""What a training step needs, made at its step or, when the loop says so, while the step before it runs."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Makes every step's part in turn; the next one can be made early.

    Args:
        make: step number -> what the step needs.
    """

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make
        self._early: tuple[int, T | Exception] | None = None

    def at(self, step: int) -> T:
        """This step's, the early one if there is any; what went wrong in making it is raised here."""
        early, self._early = self._early, None
        if early is None or early[0] != step:
            return self._make(step)
        if isinstance(early[1], Exception):
            raise early[1]
        return early[1]

    def fetch(self, step: int) -> None:
        """Have this step's ready."""
        try:
            self._early = step, self._make(step)
        except Exception as error:
            self._early = step, error
