"""Parquet files with a text per row, with or without images beside it."""

from collections.abc import Iterator, Sequence

from storage.images.parquet import CAPTIONS, rows_and_columns, text_column, texts
from storage.prompts.places import prompt_files
from storage.prompts.problems import PromptProblem

SUFFIX = ".parquet"


def parquet_prompts(place: str) -> Iterator[tuple[str, str]]:
    """Where it is, for messages, and the first text of every row, of the column that `ParquetImages` takes too.

    Args:
        place: a .parquet file, a folder of them, or a pattern, see `storage.images.places.named_files`.

    Raises:
        PromptProblem: a file is not there, or the files share no column of texts.
        ImageProblem: a file is broken, or a row holds no text.
    """
    parts = prompt_files(place, SUFFIX)
    columns = [rows_and_columns(part)[1] for part in parts]
    column = text_column(columns)
    if column is None:
        raise PromptProblem(
            f"{place} has no column of texts ({', '.join(CAPTIONS)}) in every file; the columns are {_named(columns)}"
        )
    for part in parts:
        yield from texts(part, column)


def _named(columns: Sequence[Sequence[str]]) -> str:
    """All columns of all files, each once."""
    return ", ".join(dict.fromkeys(name for names in columns for name in names)) or "none"
