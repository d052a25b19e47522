"""Texts as they are stored, and what a prompt may be."""

import codecs
import unicodedata
from typing import Any, NamedTuple

from agd_core.basics.errors import InputError

MOST_CHARACTERS = 10_000
"""A longer text is no prompt."""
MOST_TEXT_BYTES = 1 << 20
"""A larger file, or member of a tar, is no caption."""
_NO_TEXT = ("Cc", "Cs")
"""Unicode's categories of control characters and of halves of surrogate pairs."""


class StoredText(NamedTuple):
    """A text of a source."""

    where: str
    """For messages."""
    text: str
    """As it is stored."""


def decoded(data: bytes, where: str) -> str:
    """UTF-8, with or without a byte order mark.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}") from error


def checked(where: str, text: str) -> str:
    """The text without surrounding white space, which may leave nothing of it.

    Raises:
        InputError: it is too long or holds a control character.
    """
    text = text.strip()
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"{where} has {len(text)} characters; allowed are {MOST_CHARACTERS} at most")
    for place, character in enumerate(text, start=1):
        if unicodedata.category(character) in _NO_TEXT:
            raise InputError(f"{where} holds the control character U+{ord(character):04X}, its character {place}")
    return text


def first_text(cell: Any, where: str) -> str:
    """A text, or the first of a list of texts.

    Raises:
        InputError: it is neither.
    """
    text = cell[0] if isinstance(cell, list) and cell else cell
    if not isinstance(text, str):
        raise InputError(f"{where} holds no text; allowed are a text or a list of texts")
    return text


def class_text(cell: Any, where: str) -> str:
    """A class as text: its number or its name.

    Raises:
        InputError: it is neither.
    """
    if type(cell) not in (int, str):
        raise InputError(f"{where} holds no class; allowed are a whole number or a name")
    return str(cell)
