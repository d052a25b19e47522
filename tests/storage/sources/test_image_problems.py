"""Bad input is one clear line, and nothing of it is run or unpacked."""

import gzip
import io
import json
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from PIL import Image

from agd_core.basics.errors import InputError
from storage.sources import batches, open_images
from tests.storage.sources.image_files import (
    add_member,
    encoded,
    write_folder,
    write_parquet,
    write_shards,
    write_tar,
    write_zarr,
)

RANDOM = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1), dtype=np.uint8)


def empty(path):
    path.mkdir()
    return str(path)


def file(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def among_images(path, data, name="0001.png"):
    write_folder(path, RANDOM)
    file(path / "000" / name, data)
    return str(path)


def bare_png(width, height, bits=1):
    """A well-formed PNG of zeros that is tiny on disk."""
    buffer = io.BytesIO()
    Image.new("1" if bits == 1 else "L", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def tar_of(path, *members):
    with tarfile.open(path, "w") as tar:
        for member in members:
            tar.addfile(member)
    return str(path)


def link(name):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
    return member


def cut(place, length):
    with open(place, "r+b") as opened:
        opened.truncate(length)
    return place


def group(path):
    zarr.open_group(str(path), mode="w").create_array("photos", data=RANDOM)
    return str(path)


def array(path, values):
    zarr.create_array(str(path), data=values)
    return str(path)


def pickled(path, field, zarr_format):
    write_zarr(path, RANDOM, zarr_format)
    name = "zarr.json" if zarr_format == 3 else ".zarray"
    settings = json.loads((path / name).read_text())
    settings[field] = [{"id": "pickle", "name": "numcodecs.pickle", "configuration": {}}]
    # written with an escape, as somebody with bad intentions would
    (path / name).write_text(json.dumps(settings).replace("pickle", "\\u0070ickle"))
    return str(path)


def torn_chunk(path):
    write_zarr(path, RANDOM)
    (path / "c" / "0" / "0" / "0" / "0").write_bytes(b"torn")
    return str(path)


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


PIXELS_16 = encoded(np.full((16, 16), 40_000, np.uint16))
GIF = encoded(RANDOM[0], "GIF")
JPEG = encoded(np.repeat(RANDOM[0], 3, axis=-1), "JPEG")
BAD_PLACES = {
    "nothing there": (lambda p: str(p / "absent"), "absent does not exist; allowed are a folder"),
    "no such tar": (lambda p: str(p / "absent.tar"), "absent.tar does not exist"),
    "no such parquet": (lambda p: str(p / "absent.parquet"), "absent.parquet does not exist"),
    "no such zarr": (lambda p: str(p / "absent.zarr"), "is no Zarr array"),
    "a URL": (lambda p: "s3://bucket/images", "does not exist; allowed are a folder"),
    "empty folder": (lambda p: empty(p / "e"), "holds no images; allowed are a folder"),
    "folder of other files": (lambda p: file(p / "e" / "a.txt", b"").rpartition("/")[0], "holds no images"),
    "table of numbers": (lambda p: file(p / "a.csv", b"1,2"), "of no known kind; allowed are a folder"),
    "compressed tar": (lambda p: file(p / "a.tar.gz", b""), "of no known kind"),
    "compressed tar in disguise": (lambda p: file(p / "a.tar", gzip.compress(bytes(9999))), "is no whole tar"),
    "empty tar": (lambda p: file(p / "a.tar", b""), "is no whole tar"),
    "tar of links": (lambda p: tar_of(p / "a.tar", link("a.png")), "holds no images"),
    "tar cut within a member": (lambda p: cut(write_tar(p / "a.tar", RANDOM), 700), "is no whole tar"),
    "tar cut between members": (lambda p: cut(write_tar(p / "a.tar", RANDOM), 2048), "is no whole tar"),
    "missing shard": (
        lambda p: write_shards(p / "t", RANDOM) + "/shard-{000..007}.tar",
        "shard-004.tar does not exist",
    ),
    "pattern without files": (lambda p: write_shards(p / "t", RANDOM) + "/s*e.tar", "s*e.tar does not exist"),
    "range without end": (lambda p: str(p / "{0..99999999999}.tar"), "0.tar does not exist"),
    "Zarr group": (lambda p: group(p / "a.zarr"), "is no Zarr array (of a group, name the array in it)"),
    "Zarr of floats": (
        lambda p: array(p / "a.zarr", np.zeros((2, 4, 4, 3))),
        "is float64 [2, 4, 4, 3]; allowed is uint8",
    ),
    "Zarr of two channels": (lambda p: array(p / "a.zarr", np.zeros((2, 4, 4, 2), np.uint8)), "is uint8 [2, 4, 4, 2]"),
    "Zarr of one image": (lambda p: array(p / "a.zarr", np.zeros((4, 4), np.uint8)), "is uint8 [4, 4]; allowed"),
    "Zarr without images": (lambda p: array(p / "a.zarr", np.zeros((0, 4, 4), np.uint8)), "holds no images"),
    "Zarr with torn metadata": (lambda p: file(p / "a.zarr" / "zarr.json", b"{")[:-10], "a.zarr/zarr.json is no JSON"),
    "pickle as filter": (lambda p: pickled(p / "a.zarr", "filters", 2), "packed with pickle, which is never unpacked"),
    "pickle as codec": (lambda p: pickled(p / "a.zarr", "codecs", 3), "packed with pickle, which is never unpacked"),
    "no image column": (
        lambda p: table(p / "a.parquet", picture=[b""], n=[1]),
        "no column 'image' of encoded images; it",
    ),
    "torn parquet": (lambda p: cut(write_parquet(p / "a.parquet", RANDOM), 300), "is no whole Parquet file"),
    "parquet without rows": (lambda p: table(p / "a.parquet", image=pa.array([], pa.binary())), "holds no images"),
}
BAD_IMAGES = {
    "no image": (lambda p: among_images(p, b"hello"), "0001.png is no image that can be decoded (PNG, JPEG, WebP)"),
    "empty file": (lambda p: among_images(p, b""), "0001.png is no image that can be decoded"),
    "cut off": (lambda p: among_images(p, JPEG[:-30]), "0001.png is no image that can be decoded"),
    "another format": (lambda p: among_images(p, GIF), "0001.png is no image that can be decoded"),
    "bomb": (lambda p: among_images(p, bare_png(20_000, 10_000)), "decompression bomb"),
    "half a bomb": (lambda p: among_images(p, bare_png(12_000, 8_000)), "decompression bomb"),
    "16 bits": (lambda p: among_images(p, PIXELS_16), "0001.png has pixels of type I;16; allowed are images of 8 bits"),
    "another size": (
        lambda p: among_images(p, encoded(np.zeros((20, 18), np.uint8))),
        "0000.png has 16 x 16 pixels, {}/000/0001.png has 18 x 20; evaluate.reference_crop=N resizes",
    ),
    "broken in a tar": (lambda p: broken_member(p / "t"), "a.tar/bad.png is no image that can be decoded"),
    "torn chunk": (lambda p: torn_chunk(p / "a.zarr"), "a.zarr: rows from 0 on cannot be read"),
    "no bytes": (lambda p: table(p / "a.parquet", image=[JPEG, None]), "a.parquet, row 1 holds no encoded image"),
    "path only": (
        lambda p: table(p / "a.parquet", image=[{"bytes": None, "path": "/etc/hostname"}]),
        "row 0 holds no encoded image: column 'image' must be bytes or a struct with bytes",
    ),
    "numbers": (lambda p: table(p / "a.parquet", image=[1]), "a.parquet, row 0 holds no encoded image"),
}


def broken_member(path):
    path.mkdir(exist_ok=True)
    with tarfile.open(path / "a.tar", "w") as tar:
        add_member(tar, "good.png", encoded(RANDOM[0]))
        add_member(tar, "bad.png", b"hello")
    return str(path / "a.tar")


@pytest.mark.parametrize("case", BAD_PLACES)
def test_what_cannot_be_opened_is_named_in_one_line(case, tmp_path):
    make, message = BAD_PLACES[case]
    place = make(tmp_path)
    with pytest.raises(InputError) as problem:
        open_images(place)
    assert message in str(problem.value)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_is_named_in_one_line(case, tmp_path):
    make, message = BAD_IMAGES[case]
    folder = tmp_path / "p"
    folder.mkdir()
    source = open_images(make(folder))
    with pytest.raises(InputError) as problem:
        list(source.batches(4))
    assert message.replace("{}", str(folder)) in str(problem.value)
    assert "\n" not in str(problem.value)


def test_images_of_different_sizes_are_brought_to_one_by_the_crop(tmp_path):
    place = among_images(tmp_path, encoded(np.zeros((20, 18), np.uint8)))
    assert next(open_images(place).batches(10, crop=12)).shape == (6, 12, 12, 1)


def test_sizes_are_compared_across_sources(tmp_path):
    sources = [
        open_images(write_folder(tmp_path / "a", RANDOM)),
        open_images(write_zarr(tmp_path / "b.zarr", RANDOM[:, :8])),
    ]
    with pytest.raises(InputError, match=r"0000.png has 16 x 16 pixels, .*b.zarr\[0\] has 16 x 8"):
        list(batches(sources, 4))


def test_a_sparse_member_is_no_image(tmp_path):
    """GNU tar's sparse files name a size that nothing in the tar backs."""
    member = tarfile.TarInfo("a.png")
    member.type = tarfile.GNUTYPE_SPARSE
    with pytest.raises(InputError, match="holds no images"):
        open_images(tar_of(tmp_path / "a.tar", member))


def test_a_large_tar_is_passed_without_remembering_its_members(tmp_path):
    place = write_tar(tmp_path / "a.tar", np.repeat(RANDOM[:1], 300, axis=0))
    passed = []

    def watch(frame, event, argument):
        if event == "return" and frame.f_code.co_name == "next" and "tarfile" in frame.f_code.co_filename:
            passed.append(len(frame.f_locals["self"].members))

    sys.setprofile(watch)
    try:
        assert len(open_images(place)) == 300
    finally:
        sys.setprofile(None)
    assert len(passed) > 600
    assert max(passed) <= 2
