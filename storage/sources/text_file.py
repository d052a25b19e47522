"""Text files with one prompt a line."""

from collections.abc import Iterator
from pathlib import Path

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import open_regular, printable
from storage.sources.places import named_files
from storage.sources.texts import StoredText, decoded

SUFFIX = ".txt"
_COMMENT = "#"
_MOST_LINE_BYTES = 1 << 20
"""No more is read at once; a longer line is refused."""


def text_lines(place: str) -> Iterator[StoredText]:
    """Every line that is no comment; a byte order mark is passed over.

    Args:
        place: a .txt file, a folder of them, or a pattern, see `storage.sources.places.named_files`.

    Raises:
        InputError: a file is not there or is not UTF-8.
    """
    for file in named_files(place, SUFFIX):
        try:
            yield from _lines(file)
        except OSError as error:
            raise InputError(f"{printable(file)} cannot be read: {error.strerror}") from error


def _lines(path: Path) -> Iterator[StoredText]:
    name = printable(path)
    with open_regular(path) as file:
        for row, line in enumerate(iter(lambda: file.readline(_MOST_LINE_BYTES), b""), start=1):
            where = f"{name}, line {row}"
            if len(line) == _MOST_LINE_BYTES and not line.endswith(b"\n"):
                raise InputError(f"{where} is longer than {_MOST_LINE_BYTES >> 20} MB")
            text = decoded(line, where)
            if not text.lstrip().startswith(_COMMENT):
                yield StoredText(where, text)
