"""The same images in every kind of source."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from PIL import Image


def encoded(pixels, form="PNG", **settings):
    array = np.asarray(pixels)
    file = io.BytesIO()
    Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array).save(file, form, **settings)
    return file.getvalue()


def write_folder(path, images, suffix="png"):
    for number, image in enumerate(images):
        file = path / f"{number // 10:03d}" / f"{number:04d}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(image))
    return str(path)


def write_tar(path, images, first=0, texts=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, image in enumerate(images, start=first):
            add_member(tar, f"{number:04d}.png", encoded(image))
            add_member(tar, f"{number:04d}.json", json.dumps({"number": number}).encode())
            if texts:
                add_member(tar, f"{number:04d}.txt", texts[number - first].encode())
    return str(path)


def add_member(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_shards(path, images, shards=4):
    for number, rows in enumerate(np.array_split(np.arange(len(images)), shards)):
        write_tar(path / f"shard-{number:03d}.tar", images[rows], first=int(rows[0]))
    return str(path)


def write_zarr(path, images, zarr_format=3, **settings):
    array = zarr.create_array(
        str(path), shape=images.shape, chunks=(8, *images.shape[1:]), dtype="uint8", zarr_format=zarr_format, **settings
    )
    array[:] = images
    return str(path)


def write_parquet(path, images, texts=None, rows_per_group=7, as_struct=True):
    cells = [encoded(image) for image in images]
    column = [{"bytes": cell, "path": "x.png"} for cell in cells] if as_struct else cells
    columns = {"image": column} | ({"caption": texts} if texts else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return str(path)


KINDS = {
    "folder": lambda path, images: write_folder(path / "folder", images),
    "tar": lambda path, images: write_tar(path / "one.tar", images),
    "tars": lambda path, images: write_shards(path / "tars", images),
    "tar range": lambda path, images: write_shards(path / "ranged", images) + "/shard-{000..003}.tar",
    "tar pattern": lambda path, images: write_shards(path / "wild", images) + "/shard-*.tar",
    "zarr": lambda path, images: write_zarr(path / "images.zarr", images),
    "zarr, sharded": lambda path, images: write_zarr(path / "sharded.zarr", images, shards=(16, *images.shape[1:])),
    "zarr 2": lambda path, images: write_zarr(path / "older", images, zarr_format=2),
    "parquet": lambda path, images: write_parquet(path / "images.parquet", images),
    "parquet, plain bytes": lambda path, images: write_parquet(path / "bytes.parquet", images, as_struct=False),
    "parquet folder": lambda path, images: write_parquet(path / "parts" / "0.parquet", images).rpartition("/")[0],
}
"""Writes images, uint8 [n, height, width, channels], below a folder and gives the place to open."""
ENCODED = [kind for kind in KINDS if "zarr" not in kind]
