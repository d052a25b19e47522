"""What is told of each image, in the order of the images: captions and classes, in every kind that holds them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from agd_core.basics.errors import InputError
from storage.sources import open_images
from storage.sources.kinds import KINDS, read_shown
from tests.storage.sources.image_files import encoded, write_zarr
from tests.storage.sources.prompt_files import write_tar

PICTURES = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
CAPTIONS = ("a dog", "zwei Hunde, äöü", "a dog", "一只狗")
LABELS = ("1", "0", "1", "boot")


def folder(path, captions=CAPTIONS, labels=LABELS):
    """Sorted by path, the images of each class stand together: so do the texts that are expected."""
    for number, (picture, caption, label) in enumerate(zip(PICTURES, captions, labels, strict=True)):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{number}.png").write_bytes(encoded(picture))
        (path / label / f"{number}.txt").write_text(f"  {caption}\n", encoding="utf-8")
    return str(path)


def parquet(path, **columns):
    table = {"image": [{"bytes": encoded(picture)} for picture in PICTURES], **columns}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path, row_group_size=3)
    return str(path)


def tar(path, suffix, texts):
    """Texts in front of their images, behind them, and in the middle of others."""
    pictures = [(f"set/{n:03d}.png", encoded(picture)) for n, picture in enumerate(PICTURES)]
    beside = [(f"set/{n:03d}{suffix}", text.encode()) for n, text in enumerate(texts)]
    return write_tar(path, *beside[:2], *pictures, *beside[2:])


def in_json(key, values):
    return [json.dumps({"url": "x", key: value}) for value in values]


WITH_CAPTIONS = {
    "parquet": lambda p: parquet(p / "a.parquet", caption=list(CAPTIONS)),
    "parquet, lists": lambda p: parquet(p / "a.parquet", sentences=[[text, "another"] for text in CAPTIONS]),
    "tar": lambda p: tar(p / "a.tar", ".txt", CAPTIONS),
    "tar of JSON": lambda p: tar(p / "a.tar", ".json", in_json("caption", CAPTIONS)),
}
WITH_LABELS = {
    "parquet, names": lambda p: parquet(p / "a.parquet", class_name=list(LABELS)),
    "tar": lambda p: tar(p / "a.tar", ".cls", LABELS),
    "tar of JSON": lambda p: tar(p / "a.tar", ".json", in_json("label", [1, 0, 1, "boot"])),
}


@pytest.mark.parametrize("kind", WITH_CAPTIONS)
def test_captions_are_those_of_the_images_in_their_order(kind, tmp_path):
    place = WITH_CAPTIONS[kind](tmp_path)
    assert read_shown(place, "captions") == CAPTIONS
    assert read_shown(str(tmp_path), "captions") == CAPTIONS
    assert len(open_images(place)) == 4


@pytest.mark.parametrize("kind", WITH_LABELS)
def test_labels_are_those_of_the_images_in_their_order(kind, tmp_path):
    assert read_shown(WITH_LABELS[kind](tmp_path), "labels") == LABELS


def test_classes_may_be_numbers_in_parquet(tmp_path):
    assert read_shown(parquet(tmp_path / "a.parquet", label=[3, 0, 12, 3]), "labels") == ("3", "0", "12", "3")


def test_a_folder_tells_captions_in_files_and_classes_by_its_folders(tmp_path):
    place = folder(tmp_path)
    names = [Path(image.name) for image in open_images(place).images()]
    assert [name.relative_to(tmp_path).as_posix() for name in names] == ["0/1.png", "1/0.png", "1/2.png", "boot/3.png"]
    assert read_shown(place, "labels") == ("0", "1", "1", "boot")
    assert read_shown(place, "captions") == (CAPTIONS[1], CAPTIONS[0], CAPTIONS[2], CAPTIONS[3])


def test_several_tars_are_read_as_their_images_are(tmp_path):
    for number, text in enumerate(CAPTIONS):
        members = (f"a.{number}.png", encoded(PICTURES[number])), ("a.txt", text.encode())
        write_tar(tmp_path / f"{number}.tar", *members)
    assert read_shown(str(tmp_path), "captions") == CAPTIONS


def alone(path):
    write_tar(path / "a.tar", ("0.png", encoded(PICTURES[0])), ("1.png", encoded(PICTURES[1])), ("1.txt", b"one"))
    return str(path)


def no_caption(path):
    Path(folder(path), "1", "2.txt").unlink()
    return str(path)


def no_class(path):
    Path(folder(path), "9.png").write_bytes(encoded(PICTURES[0]))
    return str(path)


@pytest.mark.parametrize(
    ("write", "shown", "message"),
    [
        (lambda p: write_zarr(p / "a.zarr", PICTURES), "captions", r"a\.zarr tells no captions of its images; kinds"),
        (lambda p: write_zarr(p / "a.zarr", PICTURES), "labels", r"kinds that do: .*\.tar, .*\.parquet, folders"),
        (lambda p: parquet(p / "a.parquet", x=[1] * 4), "captions", r"has no column of texts \(caption, "),
        (
            lambda p: parquet(p / "a.parquet", x=[1] * 4),
            "labels",
            r"no column of labels \(label, .*columns are image, x",
        ),
        (lambda p: parquet(p / "a.parquet", label=[1.5] * 4), "labels", "row 0, column label holds no class"),
        (lambda p: parquet(p / "a.parquet", label=[1, None, 1, 1]), "labels", "row 1, column label holds no class"),
        (
            lambda p: parquet(p / "a.parquet", caption=["a", " ", "b", "c"]),
            "captions",
            "row 1, column caption is empty",
        ),
        (alone, "captions", r"0\.png is alone: .*0\.txt is not beside it"),
        (
            lambda p: tar(p / "a.tar", ".json", in_json("x", [1] * 4)),
            "labels",
            "has no class .* its fields are 'url', ",
        ),
        (lambda p: tar(p / "a.tar", ".json", in_json("label", [True] * 4)), "labels", "field label holds no class"),
        (no_caption, "captions", r"1/2\.png has no caption: 2\.txt is not beside it"),
        (no_class, "labels", r"9\.png has no label: it lies in no folder that is named as its class"),
        (lambda p: f"{p}/absent", "labels", "absent does not exist"),
    ],
)
def test_images_that_tell_nothing_are_one_line(write, shown, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        read_shown(write(tmp_path), shown)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("broken", [b"\xff", b"x" * ((1 << 20) + 1), b"a\0b"])
def test_a_broken_text_beside_an_image_is_one_line(broken, tmp_path):
    Path(folder(tmp_path), "1", "2.txt").write_bytes(broken)
    with pytest.raises(InputError, match=r"2\.txt"):
        read_shown(str(tmp_path), "captions")


def test_every_kind_that_tells_one_is_covered_here():
    told = {suffix for suffix, kind in KINDS.items() if kind.captions or kind.labels}
    assert told == {".tar", ".parquet"}


@pytest.mark.parametrize(
    ("shown", "write"),
    [*(("captions", w) for w in WITH_CAPTIONS.values()), *(("labels", w) for w in WITH_LABELS.values())],
)
def test_what_is_damaged_is_one_line_and_never_another_text(shown, write, tmp_path):
    place = Path(write(tmp_path))
    whole, said = place.read_bytes(), []
    expected = read_shown(str(place), shown)
    for torn in (b"", whole[: len(whole) // 2], whole[:-1024], b"\xff" * len(whole)):
        place.write_bytes(torn)
        try:
            assert read_shown(str(place), shown) == expected
        except InputError as error:
            said.append(str(error))
    assert len(said) >= 3
    assert [line for line in said if "\n" in line or str(tmp_path) not in line] == []
