"""Parquet files with an image and a caption per row, as COCO is commonly packed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.images.base import ImageSource
from storage.images.pixels import EncodedImage
from storage.images.places import named_files
from storage.images.problems import ImageProblem

IMAGE = "image"
"""Column of encoded images: bytes, or a struct whose field `bytes` holds them."""
CAPTIONS = ("caption", "captions", "text", "prompt", "sentences")
"""Columns that texts are looked for in, the first that is there; of a list of texts the first is taken."""
_ROWS = 32
_BUFFER_BYTES = 1 << 20


class ParquetImages(ImageSource):
    """The rows of Parquet files, read by row group.

    Args:
        place: a .parquet file, a folder of them, or a pattern, see `storage.images.places.named_files`.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._parts = named_files(place, ".parquet")
        self._columns = [_columns(part) for part in self._parts]
        self._count = sum(rows for rows, _ in self._columns)

    def __len__(self) -> int:
        return self._count

    def files(self) -> list[Path]:
        """The Parquet files."""
        return self._parts

    def images(self) -> Iterator[EncodedImage]:
        """Every row's image."""
        for part in self._parts:
            for row, cell in enumerate(_cells(part, IMAGE)):
                yield EncodedImage(f"{part}, row {row}", _bytes(cell, f"{part}, row {row}"))

    def captions(self) -> list[str] | None:
        """Every row's first text, of the first column of `CAPTIONS` that all files have."""
        column = text_column([names for _, names in self._columns])
        return None if column is None else [text for part in self._parts for _, text in texts(part, column)]


def text_column(columns: Sequence[Sequence[str]]) -> str | None:
    """The first of `CAPTIONS` that is among the columns of every file; None where there is no such column."""
    return next((name for name in CAPTIONS if all(name in names for names in columns)), None)


def texts(part: Path, column: str) -> Iterator[tuple[str, str]]:
    """Where it is, for messages, and the first text of every row; nothing of other columns is read.

    Raises:
        ImageProblem: the file is broken, or a row holds no text.
    """
    for row, cell in enumerate(_cells(part, column)):
        where = f"{part}, row {row}, column {column}"
        yield where, first_text(cell, where)


def first_text(cell: Any, where: str) -> str:
    """A text, or the first of a list of texts.

    Raises:
        ImageProblem: it is neither.
    """
    text = cell[0] if isinstance(cell, list) and cell else cell
    if not isinstance(text, str):
        raise ImageProblem(f"{where} holds no text; allowed are a text or a list of texts")
    return text


def rows_and_columns(part: Path) -> tuple[int, list[str]]:
    """How many rows a file has, and the names of its columns.

    Raises:
        ImageProblem: it is no whole Parquet file.
    """
    try:
        with pq.ParquetFile(part) as file:
            return file.metadata.num_rows, file.schema_arrow.names
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ImageProblem(f"{part} is no whole Parquet file: {_line(error)}") from error


def _columns(part: Path) -> tuple[int, list[str]]:
    rows, names = rows_and_columns(part)
    if IMAGE not in names:
        raise ImageProblem(f"{part} has no column {IMAGE!r} of encoded images; it has {', '.join(names)}")
    return rows, names


def _cells(part: Path, column: str) -> Iterator[Any]:
    """The values of one column, a few rows in memory at a time besides what is decoded of the row group."""
    row = 0
    try:
        with pq.ParquetFile(part, pre_buffer=False, buffer_size=_BUFFER_BYTES) as file:
            for batch in file.iter_batches(_ROWS, columns=[column], use_threads=False):
                for cell in batch.column(0):
                    yield cell.as_py()
                    row += 1
    except UnicodeDecodeError as error:
        raise ImageProblem(f"{part}, row {row}, column {column} is not UTF-8") from error
    except (OSError, pa.ArrowException) as error:
        raise ImageProblem(f"{part}, column {column} cannot be read: {_line(error)}") from error


def _bytes(cell: Any, where: str) -> bytes:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise ImageProblem(f"{where} holds no encoded image: column {IMAGE!r} must be bytes or a struct with bytes")
    return data


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
