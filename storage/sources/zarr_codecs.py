"""Reading chunks of a Zarr array that a stranger may have made: few codecs, and none unpacks more than a chunk is.

A codec of Zarr's unpacks whatever it is given, and a few kilobytes can become gigabytes. Here every codec is told how
many bytes there must be, from the shape that the metadata give, and stops there.
"""

import asyncio
import bz2
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numcodecs
import numpy as np
import pyarrow as pa
from numcodecs.abc import Codec as Numcodec
from zarr.abc.codec import BytesBytesCodec

from agd_core.basics.errors import InputError

Unpack = Callable[[bytes, int], bytes]
"""Given packed bytes and a size: the first so many unpacked bytes, and one more where there are more."""

_CHECKSUM_BYTES = 4


def _zlib(data: bytes, size: int) -> bytes:
    return zlib.decompressobj().decompress(data, size + 1)


def _gzip(data: bytes, size: int) -> bytes:
    return gzip.GzipFile(fileobj=io.BytesIO(data)).read(size + 1)


def _bz2(data: bytes, size: int) -> bytes:
    return bz2.BZ2File(io.BytesIO(data)).read(size + 1)


def _zstd(data: bytes, size: int) -> bytes:
    return bytes(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(size + 1))


def _with_size(codec: Numcodec, place: slice) -> Unpack:
    """A codec whose data begin with their unpacked size; it never writes behind the buffer that it is given."""

    def unpack(data: bytes, size: int) -> bytes:
        found = int.from_bytes(data[place], "little")
        return bytes(codec.decode(data, np.empty(found, np.uint8))) if found <= size else bytes(size + 1)

    return unpack


_UNPACK: dict[str, Unpack] = {
    "gzip": _gzip,
    "zlib": _zlib,
    "bz2": _bz2,
    "zstd": _zstd,
    "blosc": _with_size(numcodecs.Blosc(), slice(4, 8)),
    "lz4": _with_size(numcodecs.LZ4(), slice(0, 4)),
}
_PLAIN = ("bytes", "transpose", "crc32c")
_SHARDING = "sharding_indexed"
_PREFIX = "numcodecs."
ALLOWED = (*_PLAIN, _SHARDING, *_UNPACK)


def unpacked(name: str, data: bytes, size: int) -> bytes:
    """Exactly `size` bytes.

    Raises:
        ValueError: there are more or fewer, or the data are damaged.
    """
    found = _UNPACK[name](data, size)
    if len(found) != size:
        raise ValueError(f"a chunk unpacks to {'more' if len(found) > size else 'fewer'} than its {size} bytes")
    return found


class BoundedCompressor(Numcodec):  # type: ignore[misc]
    """A compressor of Zarr format 2, for reading.

    Args:
        name: a key of `_UNPACK`.
        size: bytes of a chunk.
    """

    codec_id = "agd-bounded"

    def __init__(self, name: str, size: int) -> None:
        self.name, self.size = name, size

    def encode(self, buf: Any) -> Any:
        """Nothing is written."""
        raise NotImplementedError

    def decode(self, buf: Any, out: Any = None) -> Any:
        """The chunk's bytes."""
        return unpacked(self.name, bytes(buf), self.size)


@dataclass(frozen=True)
class BoundedCodec(BytesBytesCodec):
    """A compressor of Zarr format 3, for reading."""

    name: str
    added: int
    """Bytes that a chunk has beside its pixels when it is packed: its checksum."""
    is_fixed_size = False

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        size = math.prod(chunk_spec.shape) * chunk_spec.dtype.item_size + self.added
        data = unpacked(self.name, chunk_bytes.to_bytes(), size)
        return chunk_spec.prototype.buffer.from_bytes(data)

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Not known."""
        raise NotImplementedError


def bounded(metadata: Any) -> Any:
    """The same metadata of an array, with codecs that unpack no more than a chunk.

    Raises:
        InputError: there are codecs other than `ALLOWED`, or several compressors one after another.
    """
    if metadata.zarr_format == 3:
        return replace(metadata, codecs=_bounded_codecs(metadata.codecs))
    compressor = metadata.compressor
    if metadata.filters:
        raise _refused(filter.codec_id for filter in metadata.filters)
    if compressor is None:
        return metadata
    if compressor.codec_id not in _UNPACK:
        raise _refused([compressor.codec_id])
    return replace(metadata, compressor=BoundedCompressor(compressor.codec_id, math.prod(metadata.chunks)))


def _bounded_codecs(codecs: Iterable[Any]) -> tuple[Any, ...]:
    """In the order in which they pack."""
    found: list[Any] = []
    added, is_open = 0, True
    for codec in codecs:
        name = _name(codec)
        if name == _SHARDING:
            _require_plain(codec.index_codecs)
            found, is_open = [*found, replace(codec, codecs=_bounded_codecs(codec.codecs))], False
        elif name in _PLAIN:
            found, added = [*found, codec], added + (_CHECKSUM_BYTES if name == "crc32c" else 0)
        elif name in _UNPACK and is_open:
            found, is_open = [*found, BoundedCodec(name, added)], False
        else:
            raise _refused([name])
    return tuple(found)


def _require_plain(codecs: Iterable[Any]) -> None:
    if others := [name for codec in codecs if (name := _name(codec)) not in _PLAIN]:
        raise _refused(others)


def _name(codec: Any) -> str:
    return str(codec.to_dict()["name"]).removeprefix(_PREFIX)


def _refused(names: Iterable[str]) -> InputError:
    return InputError(f"is packed with {', '.join(names)}; allowed are {', '.join(ALLOWED)}, and one compressor")
