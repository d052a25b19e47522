"""Small tables of a store as plain Zarr v3 arrays: condition tensors and the schedule, one row per entry.

They are written by zarr. They are read here: a store may come from anybody, and Zarr metadata can ask for any codec
and any size. What is read is what `table_files` writes and nothing else: rows in chunks, `bytes` (little endian), then
`crc32c`, every chunk there.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import parse_json
from storage.errors import Damaged
from storage.trajectories.shards import CRC_BYTES, crc_bytes

_CHUNK_BYTES = 4 << 20
_INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
_TYPES = frozenset(["bool", *_INTEGERS, "float16", "float32", "float64"])
_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
_ONE_BYTE_CODECS = [{"name": "bytes"}, {"name": "crc32c"}]


def create_table(group: zarr.Group, name: str, array: np.ndarray) -> None:
    """Write a table, a few megabytes of rows in a chunk."""
    rows = max(1, min(len(array), _CHUNK_BYTES // max(1, array[:1].nbytes)))
    with zarr.config.set({"array.write_empty_chunks": True}):
        created = group.create_array(
            name,
            shape=array.shape,
            chunks=(rows, *array.shape[1:]),
            dtype=array.dtype,
            filters=None,
            compressors=[Crc32cCodec()],
        )
        created[:] = array


def read_tables(files: Mapping[str, bytes], folder: str) -> dict[str, np.ndarray]:
    """Every table of a folder by name.

    Raises:
        Damaged: a table is not as `create_table` writes it.
    """
    names = sorted({key.split("/")[1] for key in files if key.startswith(f"{folder}/") and key.count("/") > 1})
    return {name: _read_table(files, f"{folder}/{name}") for name in names}


def _read_table(files: Mapping[str, bytes], path: str) -> np.ndarray:
    try:
        metadata = parse_json(files[f"{path}/zarr.json"], f"{path}/zarr.json")
        return _decoded(files, path, metadata)
    except (InputError, LookupError, TypeError, ValueError) as error:
        raise Damaged(f"{path} is no table that a store has: {error}") from error


def _decoded(files: Mapping[str, bytes], path: str, metadata: Mapping[str, Any]) -> np.ndarray:
    """The array that chunks and metadata give; any error means that they are not ours."""
    shape, (rows, *rest) = metadata["shape"], metadata["chunk_grid"]["configuration"]["chunk_shape"]
    if not all(type(length) is int and length > 0 for length in (*shape, rows)) or rest != shape[1:]:
        raise ValueError(f"its shape is {shape} in chunks of {[rows, *rest]}")
    if metadata["data_type"] not in _TYPES or metadata["codecs"] not in (_CODECS, _ONE_BYTE_CODECS):
        raise ValueError("its type or its codecs are others")
    dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
    size = rows * math.prod(rest) * dtype.itemsize + CRC_BYTES
    chunks = [files["/".join([path, "c", str(chunk), *("0" for _ in rest)])] for chunk in range(-(-shape[0] // rows))]
    if any(len(chunk) != size or crc_bytes(chunk[:-CRC_BYTES]) != chunk[-CRC_BYTES:] for chunk in chunks):
        raise ValueError("a chunk has another size or checksum")
    parts = [np.frombuffer(chunk[:-CRC_BYTES], dtype).reshape(rows, *rest) for chunk in chunks]
    return np.concatenate(parts)[: shape[0]].astype(dtype.newbyteorder("="), copy=False)
