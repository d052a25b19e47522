"""Parquet files with an image and a caption per row, as COCO is commonly packed."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agd_core.errors import InputError, first_line
from agd_core.safe_files import open_regular, printable
from storage.images.base import ImageSource
from storage.images.pixels import EncodedImage
from storage.images.places import named_files

IMAGE = "image"
"""Column of encoded images: bytes, or a struct whose field `bytes` holds them."""
CAPTIONS = ("caption", "captions", "text", "prompt", "sentences")
"""Columns that texts are looked for in, the first that is there; of a list of texts the first is taken."""
_ROWS = 32
_BUFFER_BYTES = 1 << 20
_MOST_UNPACKED_BYTES = 512 << 20
"""A column of a row group may have more only if it is no more than `_MOST_RATIO` times what is stored of it."""
_MOST_RATIO = 100


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
            name = printable(part)
            for row, cell in enumerate(_cells(part, IMAGE)):
                yield EncodedImage(f"{name}, row {row}", _bytes(cell, f"{name}, row {row}"))

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
        InputError: the file is broken, or a row holds no text.
    """
    name = printable(part)
    for row, cell in enumerate(_cells(part, column)):
        where = f"{name}, row {row}, column {printable(column)}"
        yield where, first_text(cell, where)


def first_text(cell: Any, where: str) -> str:
    """A text, or the first of a list of texts.

    Raises:
        InputError: it is neither.
    """
    text = cell[0] if isinstance(cell, list) and cell else cell
    if not isinstance(text, str):
        raise InputError(f"{where} holds no text; allowed are a text or a list of texts")
    return text


def rows_and_columns(part: Path) -> tuple[int, list[str]]:
    """How many rows a file has, and the names of its columns.

    Raises:
        InputError: it is no whole Parquet file.
    """
    with _opened(part) as file:
        return file.metadata.num_rows, file.schema_arrow.names


@contextmanager
def _opened(part: Path) -> Iterator[pq.ParquetFile]:
    """The file, with a footer that can be true.

    Raises:
        InputError: it is no regular file, no whole Parquet file, or its footer contradicts itself.
    """
    with open_regular(part) as file:
        try:
            opened = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            _require_possible(opened.metadata, os.fstat(file.fileno()).st_size)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise InputError(f"{printable(part)} is no whole Parquet file: {printable(first_line(error))}") from error
        with opened:
            yield opened


def _require_possible(footer: pq.FileMetaData, size: int) -> None:
    """Refuse numbers that no file of so many bytes can have.

    Raises:
        ValueError: there are such.
    """
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    counted = sum(group.num_rows for group in groups)
    if footer.num_rows != counted or min((group.num_rows for group in groups), default=0) < 0:
        raise ValueError(f"it says that it has {footer.num_rows} rows, its row groups have {counted}")
    if footer.num_rows > size:
        raise ValueError(f"it says that it has {footer.num_rows} rows in {size} bytes")
    for column in columns:
        packed, unpacked = column.total_compressed_size, column.total_uncompressed_size
        if not 0 <= packed <= size or not 0 <= unpacked <= max(_MOST_UNPACKED_BYTES, _MOST_RATIO * packed):
            raise ValueError(f"{packed} bytes of column {column.path_in_schema} would unpack to {unpacked} bytes")


def _columns(part: Path) -> tuple[int, list[str]]:
    rows, names = rows_and_columns(part)
    if IMAGE not in names:
        found = printable(", ".join(names))
        raise InputError(f"{printable(part)} has no column {IMAGE!r} of encoded images; it has {found}")
    return rows, names


def _cells(part: Path, column: str) -> Iterator[Any]:
    """The values of one column, a few rows in memory at a time besides what is decoded of the row group."""
    row = 0
    with _opened(part) as file:
        try:
            for batch in file.iter_batches(_rows_together(file.metadata), columns=[column], use_threads=False):
                for cell in batch.column(0):
                    yield cell.as_py()
                    row += 1
        except UnicodeDecodeError as error:
            raise InputError(f"{printable(part)}, row {row}, column {printable(column)} is not UTF-8") from error
        except (OSError, pa.ArrowException, ValueError) as error:
            reason = printable(first_line(error))
            raise InputError(f"{printable(part)}, column {printable(column)} cannot be read: {reason}") from error
        if row != file.metadata.num_rows:
            raise InputError(f"{printable(part)} has {row} rows, its footer says {file.metadata.num_rows}")


def _rows_together(footer: pq.FileMetaData) -> int:
    """Fewer where a dictionary could repeat so large a cell in every row that they would fill the memory."""
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    largest = max(
        (group.column(number).total_uncompressed_size for group in groups for number in range(group.num_columns)),
        default=0,
    )
    return max(1, min(_ROWS, _MOST_UNPACKED_BYTES // max(1, largest)))


def _bytes(cell: Any, where: str) -> bytes:
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise InputError(f"{where} holds no encoded image: column {IMAGE!r} must be bytes or a struct with bytes")
    return data
