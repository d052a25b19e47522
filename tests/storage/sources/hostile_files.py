"""Files that no honest program writes: bombs, pipes, footers and headers that lie."""

import gzip
import io
import json
import os
import struct
import tarfile
import zlib

import google_crc32c
import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

IMAGE = (64, 64)
BOMB_BYTES = 64 << 20
"""What a bomb unpacks to; its chunk should be a few kilobytes."""


def png(width, height, chunks=()):
    """A PNG of zeros with 8 bits a pixel, and further chunks (name, data) in front of the pixels."""
    packer, packed = zlib.compressobj(1), []
    for _ in range(height):
        packed.append(packer.compress(bytes(width + 1)))
    pixels = b"".join([*packed, packer.flush()])
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def pipe(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    return str(path)


def endless(path):
    """A link to a device that never ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/dev/zero")
    return str(path)


def zarr_bomb(path, codec, zarr_format):
    """An array whose only chunk unpacks to far more than its 32 KB."""
    compressor = {
        ("gzip", 3): [{"name": "gzip", "configuration": {"level": 9}}],
        ("zstd", 3): [{"name": "zstd", "configuration": {"level": 9, "checksum": False}}],
        ("blosc", 3): [zarr.codecs.BloscCodec().to_dict()],
    }.get((codec, zarr_format), {"id": codec})
    key = _array(path, zarr_format, compressor)
    packed = numcodecs.get_codec({"id": codec}).encode(bytes(BOMB_BYTES))
    (path / key).parent.mkdir(parents=True, exist_ok=True)
    (path / key).write_bytes(packed)
    return str(path)


def _array(path, zarr_format, compressor):
    shape = [8, *IMAGE]
    path.mkdir(parents=True)
    if zarr_format == 2:
        settings = {"zarr_format": 2, "shape": shape, "chunks": shape, "dtype": "|u1", "fill_value": 0}
        settings |= {"order": "C", "compressor": compressor, "filters": None}
        (path / ".zarray").write_text(json.dumps(settings))
        return "0.0.0"
    (path / "zarr.json").write_text(json.dumps(zarr_settings(shape, shape, compressor)))
    return "c/0/0/0"


def zarr_settings(shape, chunks, compressors=()):
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes"}, *compressors],
        "attributes": {},
    }


def zarr_of(path, shape, chunks, compressors=()):
    """Metadata alone."""
    path.mkdir(parents=True)
    (path / "zarr.json").write_text(json.dumps(zarr_settings(shape, chunks, compressors)))
    return str(path)


def sharded_bomb(path, images):
    """A shard of which one inner chunk was exchanged for a bomb: the index says where it is."""
    zarr.create_array(
        str(path), shape=images.shape, chunks=(4, *images.shape[1:]), shards=images.shape, dtype="uint8",
        compressors=zarr.codecs.GzipCodec(), fill_value=1,
    )[:] = images  # fmt: skip
    shard = path / "c" / "0" / "0" / "0" / "0"
    count, data = len(images) // 4, shard.read_bytes()
    index = np.frombuffer(data[-16 * count - 4 : -4], "<u8").reshape(count, 2).copy()
    bomb = gzip.compress(bytes(BOMB_BYTES))
    index[1] = len(data[: -16 * count - 4]), len(bomb)
    packed = index.tobytes()
    checksum = struct.pack("<I", google_crc32c.value(packed))
    shard.write_bytes(data[: -16 * count - 4] + bomb + packed + checksum)
    return str(path)


def parquet_bomb(path, megabytes):
    """One cell of zeros, stored in a few bytes."""
    cell = bytes(megabytes << 20)
    pq.write_table(pa.table({"image": pa.array([cell])}), path, compression="zstd", use_dictionary=False)
    return str(path)


def repeating_parquet(path, megabytes, rows):
    """One large cell that every row repeats by its number in a dictionary."""
    cell = np.random.default_rng(0).bytes(megabytes << 20)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([cell]))
    pq.write_table(
        pa.table({"image": column.dictionary_decode()}), path, use_dictionary=True, dictionary_pagesize_limit=1 << 30
    )
    return str(path)


def header_of(size, kind, name="a.png"):
    """A tar whose first header asks for `size` bytes behind it; there are none."""
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def tar_bytes(*parts):
    return b"".join(parts) + bytes(2 * tarfile.BLOCKSIZE)


def leading_back():
    """A member whose attributes say that it has a negative size: the next one would be itself."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = {"size": "-2048"}
        tar.addfile(member)
    return out.getvalue()
