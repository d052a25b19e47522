"""Parquet files that know their own checksum: any flipped byte, anywhere in the file, is noticed.

The footer's metadata holds `crc32c` as eight hex digits, taken over the whole file with those digits as zeros. Any
Parquet reader opens such a file; `unseal` also proves that it is whole. Not that it is ours: anybody can compute the
checksum. So `unseal` bounds what a small file may unpack to, and `require_columns` says what a reader relies on.
"""

import io
from collections.abc import Collection
from typing import Any

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from agd_core.basics.errors import first_line
from storage.errors import Damaged

_KEY = "agd.crc32c"
_MARK = "agd-crc32c:"
_DIGITS = 8
_OUR_KEYS = (_KEY.encode(), b"ARROW:schema")
_MOST_VALUES = 1 << 27
"""In all columns together; a list counts as many."""
_MOST_UNPACKED = 4 << 30
_DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError, TypeError)
"""What pyarrow answers to bytes that are no Parquet."""


def seal(table: pa.Table, metadata: dict[str, str]) -> bytes:
    """A Parquet file of this table and footer metadata, with its checksum in it."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_statistics=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({**metadata, _KEY: _MARK + "0" * _DIGITS})
    data = sink.getvalue()
    digits = f"{google_crc32c.value(data):08x}".encode()
    start = _digits_start(data)
    return data[:start] + digits + data[start + _DIGITS :]


def unseal(data: bytes) -> tuple[pa.Table, dict[str, str]]:
    """Table and footer metadata of a sealed file.

    Raises:
        Damaged: the bytes are not those that `seal` gave.
    """
    start = _digits_start(data)
    digits = data[start : start + _DIGITS]
    blank = data[:start] + b"0" * _DIGITS + data[start + _DIGITS :]
    if digits != f"{google_crc32c.value(blank):08x}".encode():
        raise Damaged("fails its checksum")
    try:
        return _read(data)
    except Damaged:
        raise
    except _DAMAGE as error:
        raise Damaged(f"is no Parquet file of ours: {first_line(error)}") from error


def require_columns(table: pa.Table, schema: pa.Schema, optional: Collection[str] = ()) -> None:
    """Refuse a table that lacks a column of a schema, has it in another type, or has no value in one of its rows.

    Args:
        table: what `unseal` gave.
        schema: the columns that its reader relies on.
        optional: those of them that may have no value.

    Raises:
        Damaged: names the column.
    """
    for field in schema:
        column = table[field.name] if table.column_names.count(field.name) == 1 else None
        if column is None or column.type != field.type or (column.null_count and field.name not in optional):
            raise Damaged(f"has no column {field.name} of {field.type} with a value in every row")


def _read(data: bytes) -> tuple[pa.Table, dict[str, str]]:
    file = pq.ParquetFile(io.BytesIO(data))
    parts = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    columns = [part.column(column) for part in parts for column in range(part.num_columns)]
    values, unpacked = sum(c.num_values for c in columns), sum(c.total_uncompressed_size for c in columns)
    if file.metadata.num_rows > len(data) or values > _MOST_VALUES or unpacked > _MOST_UNPACKED:
        raise Damaged("holds more than a file of its size can")
    footer: dict[Any, Any] = file.metadata.metadata or {}
    return file.read(), {key.decode(): value.decode() for key, value in footer.items() if key not in _OUR_KEYS}


def _digits_start(data: bytes) -> int:
    place = data.rfind(_MARK.encode())
    if place < 0:
        raise Damaged("has no checksum")
    return place + len(_MARK)
