"""What every kind of source keeps to; a new kind in `KINDS` has an example here or fails."""

import re
from pathlib import Path

import numpy as np
import pytest

from agd_core.basics.errors import InputError
from storage.sources import batches, open_images, read_prompts, stamp
from storage.sources.images import ImageSource
from storage.sources.kinds import KINDS, Kind
from storage.sources.pixels import PixelImage
from storage.sources.places import named_files
from storage.sources.texts import StoredText
from tests.storage.sources import hostile_files as hostile
from tests.storage.sources import image_files, prompt_files

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (5, 16, 16, 1), dtype=np.uint8)
PROMPTS = ("a dog", "zwei Hunde, äöü", "一只狗")
IMAGES = {
    ".zarr": image_files.write_zarr,
    ".tar": image_files.write_tar,
    ".parquet": image_files.write_parquet,
}
"""How images are written, by kind: given a path and uint8 `[n, height, width, channels]`."""
TEXTS = {
    ".tar": lambda path, texts: prompt_files.write_tar(path, *prompt_files.text_members(texts)),
    ".parquet": lambda path, texts: prompt_files.write_parquet(path, caption=list(texts)),
    ".txt": prompt_files.write_text,
}
"""How texts are written, by kind."""
WITH_IMAGES = [suffix for suffix, kind in KINDS.items() if kind.images]
WITH_TEXTS = [suffix for suffix, kind in KINDS.items() if kind.texts]


def test_every_kind_has_an_example_of_what_it_holds():
    assert sorted(WITH_IMAGES) == sorted(IMAGES)
    assert sorted(WITH_TEXTS) == sorted(TEXTS)
    assert [suffix for suffix, kind in KINDS.items() if not (kind.marks and (kind.images or kind.texts))] == []


@pytest.mark.parametrize("suffix", WITH_IMAGES)
def test_images_are_decoded_in_the_order_in_which_they_were_written(suffix, tmp_path):
    source = open_images(IMAGES[suffix](tmp_path / f"a{suffix}", PICTURES))
    assert len(source) == len(list(source.images())) == 5
    np.testing.assert_array_equal(np.concatenate(list(batches([source], 2))), PICTURES)
    np.testing.assert_array_equal(np.stack([image.pixels(None) for image in source.images()]), PICTURES)
    assert {image.size() for image in source.images()} == {(16, 16)}


@pytest.mark.parametrize("suffix", WITH_IMAGES)
def test_the_digest_is_of_content_and_order(suffix, tmp_path):
    written = [PICTURES, PICTURES, PICTURES[::-1]]
    sources = [open_images(IMAGES[suffix](tmp_path / f"{n}{suffix}", rows)) for n, rows in enumerate(written)]
    first, same, other = [source.content_digest() for source in sources]
    assert first == same != other
    assert stamp(sources[0]) != stamp(sources[1])


@pytest.mark.parametrize("suffix", WITH_TEXTS)
def test_texts_are_read_in_the_order_in_which_they_were_written(suffix, tmp_path):
    assert read_prompts(TEXTS[suffix](tmp_path / f"a{suffix}", PROMPTS)) == PROMPTS
    assert read_prompts(str(tmp_path)) == PROMPTS
    assert read_prompts(str(tmp_path), most=2) == PROMPTS[:2]


@pytest.mark.parametrize("suffix", [suffix for suffix in WITH_IMAGES if suffix not in WITH_TEXTS])
def test_a_kind_without_texts_is_refused_as_a_list_of_prompts(suffix, tmp_path):
    with pytest.raises(InputError, match="is of no known kind"):
        read_prompts(IMAGES[suffix](tmp_path / f"a{suffix}", PICTURES))


def every_reading():
    images = [(suffix, IMAGES[suffix], PICTURES, lambda p: list(open_images(p).batches(2))) for suffix in WITH_IMAGES]
    texts = [(suffix, TEXTS[suffix], PROMPTS, read_prompts) for suffix in WITH_TEXTS]
    return images + texts


@pytest.mark.parametrize(("suffix", "write", "content", "read"), every_reading())
def test_what_is_damaged_is_named_in_one_line_or_does_not_show(suffix, write, content, read, tmp_path):
    place = Path(write(tmp_path / f"a{suffix}", content))
    files = sorted(path for path in [place, *place.rglob("*")] if path.is_file())
    whole, said = {path: path.read_bytes() for path in files}, []
    for path, data in whole.items():
        for torn in (b"", data[: len(data) // 2], b"\xff" * len(data)):
            path.write_bytes(torn)
            try:
                read(str(place))
            except InputError as error:
                said.append(str(error))
        path.write_bytes(data)
    assert len(said) >= 2 * len(files)
    assert [line for line in said if "\n" in line or str(tmp_path) not in line] == []
    read(str(place))


@pytest.mark.parametrize(("suffix", "write", "content", "read"), every_reading())
@pytest.mark.parametrize("make", [hostile.pipe, hostile.endless])
def test_what_is_no_regular_file_is_never_opened(make, suffix, write, content, read, tmp_path):
    place = Path(write(tmp_path / f"a{suffix}", content))
    file = next(path for path in [place, *place.rglob("*")] if path.is_file())
    file.unlink()
    make(file)
    with pytest.raises(InputError, match=r"is no regular file but a (named pipe|device)$"):
        read(str(place))


@pytest.mark.parametrize(("suffix", "write", "content", "read"), every_reading())
def test_a_place_that_is_not_there_is_named(suffix, write, content, read, tmp_path):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}/absent{suffix}")):
        read(f"{tmp_path}/absent{suffix}")


class RawImages(ImageSource):
    """Grey images of 16 x 16 pixels, one behind the other."""

    def __init__(self, place):
        self.place, self._files = place, named_files(place, ".raw")

    def __len__(self):
        return sum(path.stat().st_size for path in self._files) // 256

    def files(self):
        return self._files

    def images(self):
        for path in self._files:
            pixels = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 16, 16, 1)
            yield from (PixelImage(f"{path}, image {number}", image) for number, image in enumerate(pixels))


def test_a_kind_from_outside_is_one_line_in_the_table(tmp_path, monkeypatch):
    def texts(place):
        return (StoredText(str(path), f"raw {path.stem}") for path in named_files(place, ".raw"))

    monkeypatch.setitem(KINDS, ".raw", Kind(("*.raw",), images=RawImages, texts=texts))
    for number in range(2):
        (tmp_path / f"{number}.raw").write_bytes(PICTURES[number].tobytes())
    for place in (str(tmp_path), f"{tmp_path}/*.raw"):
        np.testing.assert_array_equal(next(open_images(place).batches(5)), PICTURES[:2])
        assert read_prompts(place) == ("raw 0", "raw 1")
