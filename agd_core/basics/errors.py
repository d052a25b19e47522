"""What goes wrong for a person, as opposed to for our code: one clear line each."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input from a person: one clear line that says what, where and what is allowed.

    The command line prints the message and exits with code 2; a flow run fails with it.
    """


class NumericError(ArithmeticError):
    """A computation left the numbers that it can work with: a loss became NaN, a value does not fit its type."""


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def naming(setting: str) -> Iterator[None]:
    """Let what is wrong with a place say which setting named it, by its dotted name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{setting}: {error}") from error
