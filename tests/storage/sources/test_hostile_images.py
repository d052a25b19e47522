"""Images that were made to hang, to fill the memory or to hide: one line each, in little memory and at once."""

import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from agd_core.basics.errors import InputError
from storage.sources import open_images, parquet, stamp
from storage.sources.images import _groups
from tests.storage.sources import hostile_files as hostile
from tests.storage.sources.image_files import (
    encoded,
    write_folder,
    write_parquet,
    write_shards,
    write_tar,
    write_zarr,
)

RANDOM = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 1), dtype=np.uint8)
LITTLE_BYTES = 24 << 20


def file(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def zarr_with(path, name, make):
    write_zarr(path, RANDOM)
    (path / name).unlink()
    make(path / name)
    return str(path)


def parquet_that_says(path, told, truth):
    """The number of rows in the footer, a zigzag number of two bytes, exchanged for another one."""
    write_parquet(path, np.repeat(RANDOM[:1], truth, axis=0), rows_per_group=truth)
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    old, new = (bytes([number * 2 & 127 | 128, number * 2 >> 7]) for number in (truth, told))
    path.write_bytes(data[:start] + data[start:].replace(b"\x16" + old, b"\x16" + new, 1))
    return str(path)


NO_FILES = {
    "pipe as image": lambda p: hostile.pipe(p / "a.png").rpartition("/")[0],
    "endless image": lambda p: hostile.endless(p / "a.png").rpartition("/")[0],
    "pipe as tar": lambda p: hostile.pipe(p / "a.tar"),
    "endless tar": lambda p: hostile.endless(p / "a.tar"),
    "pipe among tars": lambda p: hostile.pipe(p / "a.tar").rpartition("/")[0],
    "pipe by a pattern": lambda p: hostile.pipe(p / "a.tar").replace("a.tar", "?.tar"),
    "pipe as Parquet": lambda p: hostile.pipe(p / "a.parquet"),
    "endless Parquet": lambda p: hostile.endless(p / "a.parquet"),
    "pipe as Zarr metadata": lambda p: zarr_with(p / "a.zarr", "zarr.json", hostile.pipe),
    "endless Zarr metadata": lambda p: zarr_with(p / "a.zarr", "zarr.json", hostile.endless),
    "pipe as older attributes": lambda p: hostile.pipe(Path(hostile.zarr_bomb(p / "a.zarr", "zlib", 2)) / ".zattrs")[
        :-8
    ],
    "pipe as chunk": lambda p: zarr_with(p / "a.zarr", "c/0/0/0/0", hostile.pipe),
    "endless chunk": lambda p: zarr_with(p / "a.zarr", "c/0/0/0/0", hostile.endless),
}


@pytest.mark.parametrize("case", NO_FILES)
def test_what_is_no_regular_file_is_never_opened(case, tmp_path):
    place = NO_FILES[case](tmp_path / "p")
    with pytest.raises(InputError, match=r"is no regular file but a (named pipe|device)$"):
        list(open_images(place).images())


@pytest.mark.parametrize("codec", ["gzip", "zstd", "blosc", "sharded"])
def test_a_zarr_chunk_unpacks_to_its_size_at_most(codec, tmp_path):
    path = tmp_path / "a.zarr"
    place = hostile.sharded_bomb(path, RANDOM) if codec == "sharded" else hostile.zarr_bomb(path, codec, 3)
    refused_in_little_memory(place, r"rows from 0 on cannot be read: a chunk unpacks to more than its \d+ bytes")


@pytest.mark.parametrize("codec", ["gzip", "zlib", "bz2", "zstd", "blosc", "lz4"])
def test_so_does_one_of_the_older_format(codec, tmp_path):
    refused_in_little_memory(hostile.zarr_bomb(tmp_path / "a", codec, 2), "a chunk unpacks to more than its 32768")


def refused_in_little_memory(place, message):
    source = open_images(place)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message):
            list(source.images())
        assert tracemalloc.get_traced_memory()[1] < LITTLE_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", ["gzip", "zlib", "bz2", "zstd", "blosc", "lz4"])
def test_the_codecs_that_are_read_give_the_pixels(codec, tmp_path):
    place = Path(hostile.zarr_bomb(tmp_path / "a", codec, 2))
    packed = hostile.numcodecs.get_codec({"id": codec}).encode(RANDOM.tobytes())
    (place / "0.0.0").write_bytes(packed)
    np.testing.assert_array_equal(next(open_images(str(place)).batches(8)), RANDOM)


@pytest.mark.parametrize(
    ("shape", "chunks", "compressors", "message"),
    [
        ([8, 64, 64], [1 << 40, 64, 64], (), r"has chunks of [\d,]+ bytes; allowed are"),
        ([8, 10**6, 10**6], [1, 64, 64], (), r"has images of 1000000 x 1000000 pixels; allowed are"),
        ([10**12, 64, 64], [1, 64, 64], (), r"needs [\d,]+ files of chunks, most of them are missing"),
        ([8, -64, 64], [8, 64, 64], (), "is no Zarr array"),
        (
            [8, 64, 64],
            [8, 64, 64],
            ({"name": "gzip", "configuration": {"level": 1}},) * 2,
            "is packed with gzip; allowed are bytes.* and one compressor",
        ),
    ],
)
def test_absurd_zarr_metadata_are_refused_before_a_chunk_is_read(shape, chunks, compressors, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_images(hostile.zarr_of(tmp_path / "a.zarr", shape, chunks, compressors))


def test_codecs_that_nobody_bounds_are_refused(tmp_path):
    place = Path(hostile.zarr_bomb(tmp_path / "a", "zlib", 2))
    metadata = place / ".zarray"
    metadata.write_text(metadata.read_text().replace('"zlib"', '"lzma"'))
    with pytest.raises(InputError, match="a is packed with lzma; allowed are bytes"):
        open_images(str(place))


def test_a_chunk_file_that_is_too_large_is_not_read(tmp_path):
    place = write_zarr(tmp_path / "a.zarr", RANDOM)
    os.truncate(tmp_path / "a.zarr" / "c" / "0" / "0" / "0" / "0", 1 << 40)
    with pytest.raises(InputError, match="is larger than 1,114,112 bytes, the most that its chunks can take"):
        open_images(place)


TARS = {
    "endless name": (
        hostile.tar_bytes(hostile.header_of(8 << 30, tarfile.GNUTYPE_LONGNAME)),
        "a header of 8,589,934,592",
    ),
    "endless attributes": (hostile.tar_bytes(hostile.header_of(8 << 30, tarfile.XHDTYPE)), "a header of 8,589,934,592"),
    "absurd size": (hostile.tar_bytes(hostile.header_of(1 << 62, tarfile.REGTYPE)), "is no whole tar"),
    "size that leads back": (hostile.leading_back(), "its members lead back to byte|is no whole tar|holds no images"),
}


@pytest.mark.parametrize("case", TARS)
def test_a_tar_with_absurd_headers_is_refused(case, tmp_path):
    data, message = TARS[case]
    with pytest.raises(InputError, match=message):
        list(open_images(file(tmp_path / "a.tar", data)).images())


def test_a_parquet_cell_of_gigabytes_is_refused_by_the_footer(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "_MOST_UNPACKED_BYTES", 1 << 20)
    place = hostile.parquet_bomb(tmp_path / "a.parquet", megabytes=8)
    with pytest.raises(InputError, match=r"\d+ bytes of column image would unpack to \d+ bytes"):
        open_images(place)


def test_rows_that_repeat_a_large_cell_are_read_few_at_a_time(tmp_path, monkeypatch):
    """A dictionary holds the cell once, and what is read has it in every row."""
    monkeypatch.setattr(parquet, "_MOST_UNPACKED_BYTES", 4 << 20)
    place = hostile.repeating_parquet(tmp_path / "a.parquet", megabytes=1, rows=64)
    before = pa.default_memory_pool().bytes_allocated()
    largest = max(pa.default_memory_pool().bytes_allocated() for _ in open_images(place).images()) - before
    assert largest < 16 << 20


def test_a_footer_that_lies_about_its_rows_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"it says that it has 129 rows, its row groups have 128"):
        open_images(parquet_that_says(tmp_path / "a.parquet", told=129, truth=128))


def test_a_picture_is_refused_by_its_size_before_it_is_decoded(tmp_path):
    write_folder(tmp_path / "p", RANDOM)
    file(tmp_path / "p" / "000" / "0003.png", hostile.png(9500, 9500))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"0003.png is no image that can be decoded .*decompression bomb"):
            list(open_images(str(tmp_path / "p")).batches(8))
        assert tracemalloc.get_traced_memory()[1] < LITTLE_BYTES
    finally:
        tracemalloc.stop()


def test_large_pictures_are_decoded_one_after_another(tmp_path, monkeypatch):
    """Thirty-two of the largest at once would take gigabytes."""
    monkeypatch.setattr("storage.sources.images._PIXELS_TOGETHER", 2 * 64 * 64)
    source = open_images(write_folder(tmp_path / "p", RANDOM))
    together = [len(group) for group in _groups(source.images())]
    assert together == [2, 2, 2, 2]


def test_a_line_of_pixels_is_not_blown_up_by_the_crop(tmp_path):
    file(tmp_path / "p" / "line.png", hostile.png(1 << 20, 1))
    with pytest.raises(InputError, match=r"line.png has 1048576 x 1 pixels, too long to be cropped to 299 x 299"):
        list(open_images(str(tmp_path / "p")).batches(8, crop=299))


def test_a_broken_image_is_named_and_no_buffer_is(tmp_path):
    file(tmp_path / "p" / "a.png", b"hello")
    with pytest.raises(InputError, match=r"a.png is no image that can be decoded \(PNG, JPEG, WebP\): another format$"):
        list(open_images(str(tmp_path / "p")).batches(8))


@pytest.mark.parametrize("suffix", ["png", "tar", "parquet", "zarr"])
def test_names_that_are_not_utf8_are_read(suffix, tmp_path):
    """The same pixels, and a stamp that a JSON file can hold."""
    name = os.fsdecode(b"caf\xe9." + suffix.encode())
    write = {
        "png": lambda path: file(path, encoded(RANDOM[0])),
        "tar": lambda path: write_tar(path, RANDOM[:1]),
        "parquet": lambda path: write_parquet(path, RANDOM[:1]),
        "zarr": lambda path: write_zarr(path, RANDOM[:1]),
    }
    (tmp_path / "p").mkdir()
    write[suffix](tmp_path / "p" / f"plain.{suffix}")
    plain = open_images(str(tmp_path / "p" / ("" if suffix == "png" else f"plain.{suffix}")))
    pixels, digest, first = next(plain.batches(1)), plain.content_digest(), stamp(plain)
    (tmp_path / "p" / f"plain.{suffix}").rename(tmp_path / "p" / name)
    named = open_images(str(tmp_path / "p" / ("" if suffix == "png" else name)))
    np.testing.assert_array_equal(next(named.batches(1)), pixels)
    assert named.content_digest() == digest
    assert stamp(named) != first
    assert "\\udce9" in next(named.images()).name


@pytest.mark.parametrize("folder", ["wds [v2]", "a*b", "[", "what?"])
def test_a_folder_with_signs_of_patterns_in_its_name_is_itself(folder, tmp_path):
    write_shards(tmp_path / folder, RANDOM)
    write_shards(tmp_path / "wds v", RANDOM[:4])
    write_shards(tmp_path / "a-b", RANDOM[:4])
    for place in ("", "/shard-*.tar", "/shard-{000..003}.tar", "/shard-00[0-3].tar"):
        assert len(open_images(f"{tmp_path / folder}{place}")) == 8


def test_a_file_with_signs_of_patterns_in_its_name_is_itself(tmp_path):
    write_tar(tmp_path / "a[1].tar", RANDOM[:3])
    write_tar(tmp_path / "a1.tar", RANDOM)
    assert len(open_images(str(tmp_path / "a[1].tar"))) == 3
    write_tar(tmp_path / "b[1]-2.tar", RANDOM[:5])
    assert len(open_images(str(tmp_path / "b[1]-{2..2}.tar"))) == 5


def test_relative_patterns_are_patterns_from_their_first_part_on(tmp_path, monkeypatch):
    write_shards(tmp_path / "one", RANDOM)
    write_shards(tmp_path / "two", RANDOM[:4])
    monkeypatch.chdir(tmp_path)
    assert len(open_images("[ot]*/shard-00?.tar")) == 12


def linked(path):
    """Classes on two disks: dogs here, cats elsewhere."""
    write_folder(path / "photos" / "dogs", RANDOM[:5])
    write_folder(path / "disk2" / "cats", RANDOM[5:])
    (path / "photos" / "cats").symlink_to(path / "disk2" / "cats")
    return path / "photos"


def test_folders_that_are_links_are_followed_as_torchvision_does(tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    photos = linked(tmp_path)
    source = open_images(str(photos))
    assert [str(path) for path in source.files()] == [path for path, _ in datasets.ImageFolder(str(photos)).samples]
    np.testing.assert_array_equal(next(source.batches(8)), RANDOM[[5, 6, 7, 0, 1, 2, 3, 4]])


def test_files_that_are_links_are_followed(tmp_path):
    photos = linked(tmp_path)
    (photos / "one.png").symlink_to(tmp_path / "disk2" / "cats" / "000" / "0000.png")
    write_tar(tmp_path / "disk2" / "a.tar", RANDOM)
    (tmp_path / "a.tar").symlink_to(tmp_path / "disk2" / "a.tar")
    assert (len(open_images(str(photos))), len(open_images(str(tmp_path / "a.tar")))) == (9, 8)


def test_chunks_behind_a_link_count_in_the_stamp(tmp_path):
    place = write_zarr(tmp_path / "a.zarr", RANDOM)
    (tmp_path / "a.zarr" / "c").rename(tmp_path / "elsewhere")
    (tmp_path / "a.zarr" / "c").symlink_to(tmp_path / "elsewhere")
    source = open_images(place)
    np.testing.assert_array_equal(next(source.batches(8)), RANDOM)
    assert any(path.name == "0" for path in source.files())


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("photos/dogs/all", "..", "dogs/all is a link to a folder that it lies in"),
        ("photos/self", "self", "photos/self cannot be read: Too many levels"),
        ("photos/birds", "/no/such/disk", "photos/birds is a link to nothing"),
        ("photos/x.png", "/no/such/disk/x.png", "photos/x.png is a link to nothing"),
        ("disk2/cats/back", "../../photos", "cats/back is a link to a folder that it lies in"),
    ],
)
def test_links_that_lead_nowhere_or_in_a_circle_are_named(name, target, message, tmp_path):
    photos = linked(tmp_path)
    (tmp_path / name).symlink_to(target)
    with pytest.raises(InputError, match=message):
        open_images(str(photos))


def test_folders_that_link_to_one_another_do_not_multiply_for_ever(tmp_path):
    for level in range(40):
        (tmp_path / f"{level:02d}").mkdir()
        for name in "ab":
            (tmp_path / f"{level:02d}" / name).symlink_to(tmp_path / f"{level + 1:02d}")
    write_folder(tmp_path / "40", RANDOM)
    with pytest.raises(InputError, match=r"holds more than 10,000 links to folders|cannot be read: Too many levels"):
        open_images(str(tmp_path / "00"))
