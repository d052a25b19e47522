"""Parquet files with a text per row, with or without images beside it."""

from collections.abc import Iterator, Sequence

from agd_core.errors import InputError
from agd_core.safe_files import printable
from storage.images.parquet import CAPTIONS, rows_and_columns, text_column, texts
from storage.images.places import named_files

SUFFIX = ".parquet"


def parquet_prompts(place: str) -> Iterator[tuple[str, str]]:
    """Where it is, for messages, and the first text of every row, of the column that `ParquetImages` takes too.

    Args:
        place: a .parquet file, a folder of them, or a pattern, see `storage.images.places.named_files`.

    Raises:
        InputError: a file is not there or is broken, the files share no column of texts, or a row holds no text.
    """
    parts = named_files(place, SUFFIX, "prompts")
    columns = [rows_and_columns(part)[1] for part in parts]
    column = text_column(columns)
    if column is None:
        raise InputError(
            f"{printable(place)} has no column of texts ({', '.join(CAPTIONS)}) in every file; "
            f"the columns are {_named(columns)}"
        )
    for part in parts:
        yield from texts(part, column)


def _named(columns: Sequence[Sequence[str]]) -> str:
    """All columns of all files, each once."""
    return ", ".join(dict.fromkeys(printable(name) for names in columns for name in names)) or "none"
