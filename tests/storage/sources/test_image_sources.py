"""Every kind of source gives the same pixels in the same order."""

import os

import numpy as np
import pytest
import zarr
from PIL import Image
from torchvision import transforms

from storage.sources import DigestMemory, batches, open_images
from tests.real_images import real_images
from tests.storage.sources.image_files import (
    ENCODED,
    KINDS,
    encoded,
    write_folder,
    write_parquet,
    write_shards,
    write_tar,
    write_zarr,
)


@pytest.fixture(scope="module")
def real():
    """Forty real images, uint8 [40, 32, 32, 1]."""
    return real_images("test", 40)[0].numpy()


def pixels(place, rows=16, crop=None):
    return np.concatenate(list(open_images(place).batches(rows, crop)))


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_and_order_are_those_written(kind, real, tmp_path):
    source = open_images(KINDS[kind](tmp_path, real))
    assert len(source) == 40
    assert [len(batch) for batch in source.batches(16)] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate(list(source.batches(16))), real)
    np.testing.assert_array_equal(np.concatenate(list(source.batches(7))), real)


@pytest.mark.parametrize("kind", KINDS)
def test_colour_keeps_its_channels(kind, real, tmp_path):
    colour = np.concatenate([real, 255 - real, real // 2], axis=-1)
    np.testing.assert_array_equal(pixels(KINDS[kind](tmp_path, colour)), colour)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zarr_array_without_channels_is_grey(zarr_format, real, tmp_path):
    write_zarr(tmp_path / "grey.zarr", real[..., 0], zarr_format)
    np.testing.assert_array_equal(pixels(str(tmp_path / "grey.zarr")), real)


def test_an_array_in_a_zarr_group_is_a_source(real, tmp_path):
    group = zarr.open_group(str(tmp_path / "all.zarr"), mode="w")
    group.create_array("photos", data=real)
    np.testing.assert_array_equal(pixels(str(tmp_path / "all.zarr" / "photos")), real)


def test_sources_in_order_are_one_stream(real, tmp_path):
    parts = [real[:9], real[9:20], real[20:21], real[21:]]
    places = [
        write_folder(tmp_path / "a", parts[0]),
        write_tar(tmp_path / "b.tar", parts[1]),
        write_zarr(tmp_path / "c.zarr", parts[2]),
        write_parquet(tmp_path / "d.parquet", parts[3]),
    ]
    found = list(batches([open_images(place) for place in places], 16))
    assert [len(batch) for batch in found] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate(found), real)


def test_batches_of_large_images_are_smaller(tmp_path):
    write_zarr(tmp_path / "large.zarr", np.zeros((12, 2048, 2048, 1), np.uint8))
    assert [len(batch) for batch in open_images(str(tmp_path / "large.zarr")).batches(500)] == [10, 2]


def test_grey_images_among_colour_ones_are_repeated_in_their_batch_only(real, tmp_path):
    colour = np.concatenate([real[:1], real[1:2], real[2:3]], axis=-1)
    mixed = [*real[:2], *colour, real[3]]
    write_folder(tmp_path / "mixed", mixed)
    first, second = open_images(str(tmp_path / "mixed")).batches(2)
    assert (first.shape, second.shape) == ((2, 32, 32, 1), (2, 32, 32, 3))
    np.testing.assert_array_equal(second[0], colour[0])
    np.testing.assert_array_equal(second[1], np.repeat(real[3], 3, axis=-1))


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_other_image_files_are_what_pillow_makes_of_them(form, real, tmp_path):
    colour = np.repeat(real, 3, axis=-1)[:5]
    for number, image in enumerate(colour):
        (tmp_path / f"{number}.{form}").write_bytes(encoded(image, form))
    wanted = [np.asarray(Image.open(tmp_path / f"{number}.{form}").convert("RGB")) for number in range(5)]
    np.testing.assert_array_equal(pixels(str(tmp_path)), np.stack(wanted))


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3), ("CMYK", 3)]
)
def test_every_mode_becomes_grey_or_colour(mode, channels, real, tmp_path):
    image = Image.fromarray(np.concatenate([real[0], real[1], real[2], real[3]], axis=-1))
    image.convert(mode).save(tmp_path / f"a.{'jpg' if mode == 'CMYK' else 'png'}")
    assert pixels(str(tmp_path)).shape == (1, 32, 32, channels)


def test_alpha_is_dropped_and_the_colour_below_it_stays(tmp_path):
    clear = np.zeros((32, 32, 4), np.uint8)
    clear[..., 0] = 200
    (tmp_path / "clear.png").write_bytes(encoded(clear))
    assert (pixels(str(tmp_path)) == [200, 0, 0]).all()


def test_a_palette_with_transparency_keeps_its_colours(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "palette.png", transparency=bytes([0, 128]))
    assert (pixels(str(tmp_path)) == [10, 20, 30]).all()


@pytest.mark.parametrize("size", [(50, 33), (33, 50), (64, 64), (32, 47), (100, 32), (20, 31)])
def test_the_crop_is_torchvisions(size, real, tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    (tmp_path / "a.png").write_bytes(encoded(image))
    both = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(32)])
    np.testing.assert_array_equal(pixels(str(tmp_path), crop=32)[0], np.asarray(both(Image.fromarray(image))))


def test_the_crop_is_the_same_for_arrays_and_files(real, tmp_path):
    places = [write_folder(tmp_path / "a", real), write_zarr(tmp_path / "b.zarr", real)]
    files, arrays = (pixels(place, crop=20) for place in places)
    assert files.shape == (40, 20, 20, 1)
    np.testing.assert_array_equal(files, arrays)


def test_hidden_files_and_other_files_are_left_out(real, tmp_path):
    write_folder(tmp_path, real)
    (tmp_path / "000" / "._0000.png").write_bytes(b"of a Mac")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "0.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("0")
    np.testing.assert_array_equal(pixels(str(tmp_path)), real)


def test_the_digest_is_of_the_images_alone(real, tmp_path):
    digests = {open_images(KINDS[kind](tmp_path / kind.replace(" ", "-"), real)).content_digest() for kind in ENCODED}
    assert len(digests) == 1
    arrays = {open_images(KINDS[kind](tmp_path / kind, real)).content_digest() for kind in ("zarr", "zarr 2")}
    assert len(arrays) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_one_changed_pixel_or_another_order_is_another_digest(kind, real, tmp_path):
    changed = real.copy()
    changed[17, 5, 5] ^= 1
    variants = [real, changed, real[::-1], real[:-1]]
    digests = {
        open_images(KINDS[kind](tmp_path / str(number), images)).content_digest()
        for number, images in enumerate(variants)
    }
    assert len(digests) == 4


def test_a_digest_is_remembered_until_a_file_changes(real, tmp_path):
    place, memory = write_shards(tmp_path / "tars", real), DigestMemory(tmp_path / "memory.json")
    seen = []
    first = memory.content_digest(open_images(place), seen.append)
    assert seen == list(range(1, 41))
    assert memory.content_digest(open_images(place), seen.append) == first == open_images(place).content_digest()
    assert len(seen) == 40
    changed = real.copy()
    changed[39] = 255 - changed[39]
    times = (tmp_path / "tars" / "shard-003.tar").stat()
    write_shards(tmp_path / "tars", changed)
    os.utime(tmp_path / "tars" / "shard-003.tar", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert memory.content_digest(open_images(place), seen.append) != first
    assert len(seen) == 80


def test_same_size_and_old_time_of_change_do_not_deceive_the_memory(real, tmp_path):
    """What `cp -p` does: the time of the entry's change tells."""
    place, memory = write_zarr(tmp_path / "a.zarr", real, compressors=None), DigestMemory(tmp_path / "memory.json")
    first = memory.content_digest(open_images(place))
    chunk = tmp_path / "a.zarr" / "c" / "0" / "0" / "0" / "0"
    times, data = chunk.stat(), bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (chunk.stat().st_size, chunk.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert memory.content_digest(open_images(place)) != first


@pytest.mark.parametrize("torn", ["", "{", "[1, 2]", '{"a": 1}', "\xff"])
def test_a_damaged_memory_is_an_empty_one(torn, real, tmp_path):
    (tmp_path / "memory.json").write_text(torn, encoding="latin-1")
    source = open_images(write_zarr(tmp_path / "a.zarr", real))
    seen = []
    assert DigestMemory(tmp_path / "memory.json").content_digest(source, seen.append) == source.content_digest()
    assert len(seen) == 40
