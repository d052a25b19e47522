"""Parquet files that know their own checksum: any flipped byte, anywhere in the file, is noticed.

The footer's metadata holds `crc32c` as eight hex digits, taken over the whole file with those digits as zeros. Any
Parquet reader opens such a file; `unseal` also proves that it is the one that was written.
"""

import io
from typing import Any

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

_KEY = "agd.crc32c"
_MARK = "agd-crc32c:"
_DIGITS = 8
_OUR_KEYS = (_KEY.encode(), b"ARROW:schema")


class TornFile(ValueError):
    """A file whose bytes are not those that were written."""


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
        TornFile: the bytes are not those that `seal` gave.
    """
    start = _digits_start(data)
    digits = data[start : start + _DIGITS]
    blank = data[:start] + b"0" * _DIGITS + data[start + _DIGITS :]
    if digits != f"{google_crc32c.value(blank):08x}".encode():
        raise TornFile("fails its checksum")
    file = pq.ParquetFile(io.BytesIO(data))
    footer: dict[Any, Any] = file.metadata.metadata or {}
    return file.read(), {key.decode(): value.decode() for key, value in footer.items() if key not in _OUR_KEYS}


def _digits_start(data: bytes) -> int:
    place = data.rfind(_MARK.encode())
    if place < 0:
        raise TornFile("has no checksum")
    return place + len(_MARK)
