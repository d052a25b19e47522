"""Parquet files with an image, a caption or both per row, as COCO is commonly packed."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from agd_core.basics.errors import InputError, first_line
from agd_core.basics.safe_files import open_regular, printable
from storage.sources.images import ImageSource
from storage.sources.pixels import EncodedImage
from storage.sources.places import named_files
from storage.sources.texts import StoredText, class_text, first_text

IMAGE = "image"
"""Column of encoded images: bytes, or a struct whose field `bytes` holds them."""
SUFFIX = ".parquet"
CAPTIONS = ("caption", "captions", "text", "prompt", "sentences")
"""Columns that texts are looked for in, the first that is there; of a list of texts the first is taken."""
LABELS = ("label", "class", "class_name", "cls")
"""Columns that classes are looked for in, whole numbers or names."""
_ROWS = 32
_BUFFER_BYTES = 1 << 20
_MOST_UNPACKED_BYTES = 512 << 20
"""A column of a row group may have more only if it is no more than `_MOST_RATIO` times what is stored of it."""
_MOST_RATIO = 100


class ParquetImages(ImageSource):
    """The rows of Parquet files, read by row group.

    Args:
        place: a .parquet file, a folder of them, or a pattern, see `storage.sources.places.named_files`.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._parts = named_files(place, SUFFIX)
        self._count = sum(map(_image_rows, self._parts))

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


def parquet_texts(place: str) -> Iterator[StoredText]:
    """The first text of every row, of the first column of `CAPTIONS` that all files have; nothing else is read.

    Args:
        place: as for `ParquetImages`.

    Raises:
        InputError: a file is not there or is broken, the files share no column of texts, or a row holds no text.
    """
    for part, column in _first_known(place, CAPTIONS, "texts"):
        for row, cell in enumerate(_cells(part, column)):
            where = f"{printable(part)}, row {row}, column {column}"
            yield StoredText(where, first_text(cell, where))


def parquet_labels(place: str) -> Iterator[StoredText]:
    """The class of every row, a whole number or a name, of the first column of `LABELS` that all files have.

    Args:
        place: as for `ParquetImages`.

    Raises:
        InputError: as `parquet_texts`.
    """
    for part, column in _first_known(place, LABELS, "labels"):
        for row, cell in enumerate(_cells(part, column)):
            where = f"{printable(part)}, row {row}, column {column}"
            yield StoredText(where, class_text(cell, where))


def _first_known(place: str, known: Sequence[str], what: str) -> list[tuple[Path, str]]:
    """Every file with the first of the known columns that all of them have."""
    parts = named_files(place, SUFFIX)
    columns = [_rows_and_columns(part)[1] for part in parts]
    column = next((name for name in known if all(name in names for names in columns)), None)
    if column is None:
        raise InputError(
            f"{printable(place)} has no column of {what} ({', '.join(known)}) in every file; "
            f"the columns are {_named(columns)}"
        )
    return [(part, column) for part in parts]


def parquet_column(place: str, column: str) -> Iterator[Any]:
    """The values of one column of all files, in the order of `ParquetImages`.

    Args:
        place: as for `ParquetImages`.
        column: its name.

    Raises:
        InputError: a file is not there or is broken, or has no such column.
    """
    for part in named_files(place, SUFFIX):
        names = _rows_and_columns(part)[1]
        if column not in names:
            raise InputError(f"{printable(part)} has no column {column!r}; the columns are {_named([names])}")
        yield from _cells(part, column)


def _rows_and_columns(part: Path) -> tuple[int, list[str]]:
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


def _image_rows(part: Path) -> int:
    rows, names = _rows_and_columns(part)
    if IMAGE not in names:
        found = printable(", ".join(names))
        raise InputError(f"{printable(part)} has no column {IMAGE!r} of encoded images; it has {found}")
    return rows


def _named(columns: Sequence[Sequence[str]]) -> str:
    """All columns of all files, each once."""
    return ", ".join(dict.fromkeys(printable(name) for names in columns for name in names)) or "none"


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
