"""Every format gives the same prompts in the same order."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from agd_core.basics.errors import InputError
from storage.sources import open_images, read_prompts
from tests.storage.sources.image_files import write_parquet as write_images_parquet
from tests.storage.sources.image_files import write_tar as write_images_tar
from tests.storage.sources.prompt_files import (
    FORMATS,
    PROMPTS,
    TEXT_FORMATS,
    json_members,
    text_members,
    write_bytes,
    write_parquet,
    write_tar,
    write_text,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize("kind", FORMATS)
def test_prompts_and_order_are_those_written(kind, tmp_path):
    assert read_prompts(FORMATS[kind](tmp_path)) == PROMPTS


@pytest.mark.parametrize("kind", TEXT_FORMATS)
def test_a_line_is_a_prompt_unless_it_is_blank_or_a_comment(kind, tmp_path):
    assert read_prompts(TEXT_FORMATS[kind](tmp_path)) == tuple(prompt.replace("#1", "1") for prompt in PROMPTS)


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfa\nb", b"a\r\nb\r\n", b"  a \t\n\n\n\xc2\xa0b"])
def test_byte_order_marks_line_ends_and_surrounding_space_do_not_count(data, tmp_path):
    assert read_prompts(write_bytes(tmp_path / "a.txt", data)) == ("a", "b")


def test_a_comment_may_be_indented_and_a_later_hash_is_text(tmp_path):
    assert read_prompts(write_text(tmp_path / "a.txt", ["  # no", "number #1"])) == ("number #1",)


def test_equal_prompts_are_kept_once_where_they_first_appear(tmp_path):
    texts = ["b", "a", " b ", "c", "a", "", " \n"]
    places = [
        write_text(tmp_path / "a.txt", texts),
        write_parquet(tmp_path / "a.parquet", prompt=texts),
        write_tar(tmp_path / "a.tar", *text_members(texts)),
        write_tar(tmp_path / "b.tar", *json_members(texts, "prompt")),
    ]
    assert [read_prompts(place) for place in places] == [("b", "a", "c")] * 4


def test_the_files_of_a_reference_give_its_captions(tmp_path):
    texts = ["a red bus", "two cats", "a tall tree"]
    for place in (
        write_images_parquet(tmp_path / "a.parquet", IMAGES, texts),
        write_images_tar(tmp_path / "a.tar", IMAGES, texts=texts),
    ):
        assert list(read_prompts(place)) == texts
        assert len(open_images(place)) == 3


def test_texts_in_json_count_only_where_no_tar_has_a_txt_member(tmp_path):
    write_tar(tmp_path / "t" / "0.tar", *json_members(["from JSON"]))
    write_tar(tmp_path / "t" / "1.tar", *text_members(["from a text"]))
    assert read_prompts(str(tmp_path / "t")) == ("from a text",)
    assert read_prompts(str(tmp_path / "t" / "0.tar")) == ("from JSON",)


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ({"text": ["t"], "caption": ["c"]}, "c"),
        ({"sentences": [["s", "z"]], "prompt": ["p"]}, "p"),
        ({"captions": [["first", "second"]], "text": ["t"]}, "first"),
    ],
)
def test_the_first_known_column_is_taken(columns, wanted, tmp_path):
    assert read_prompts(write_parquet(tmp_path / "a.parquet", **columns)) == (wanted,)


def test_the_column_is_one_that_all_files_have(tmp_path):
    write_parquet(tmp_path / "p" / "0.parquet", caption=["no"], text=["a"])
    write_parquet(tmp_path / "p" / "1.parquet", text=["b"])
    assert read_prompts(str(tmp_path / "p")) == ("a", "b")


def test_only_so_many_are_read(tmp_path):
    """What stands behind them may be broken."""
    place = write_bytes(tmp_path / "a.txt", b"a\na\nb\n\xff\n")
    assert read_prompts(place, most=2) == ("a", "b")


def test_hidden_files_and_members_are_left_out(tmp_path):
    write_text(tmp_path / "t" / "a.txt", ["a"])
    write_bytes(tmp_path / "t" / "._a.txt", b"\xff")
    assert read_prompts(str(tmp_path / "t")) == ("a",)
    place = write_tar(tmp_path / "a.tar", ("._0.txt", b"\xff"), ("0.txt", b"a"))
    assert read_prompts(place) == ("a",)


def test_the_images_of_a_tar_are_not_read(tmp_path):
    """40 MB of members, and less than a tenth of that in memory."""
    texts = [f"thing {n}" for n in range(10)]
    pairs = [((f"{n}.png", bytes(4 << 20)), (f"{n}.txt", text.encode())) for n, text in enumerate(texts)]
    place = write_tar(tmp_path / "a.tar", *(member for pair in pairs for member in pair))
    tracemalloc.start()
    try:
        assert read_prompts(place) == tuple(texts)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_the_images_of_parquet_are_not_read(tmp_path):
    """They may be torn."""
    place = Path(write_images_parquet(tmp_path / "a.parquet", IMAGES, ["a", "b", "c"], as_struct=False))
    column = pq.read_metadata(place).row_group(0).column(0)
    assert column.path_in_schema == "image"
    start, data = column.dictionary_page_offset or column.data_page_offset, bytearray(place.read_bytes())
    data[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    place.write_bytes(data)
    with pytest.raises(InputError, match="column image cannot be read"):
        list(open_images(str(place)).images())
    assert read_prompts(str(place)) == ("a", "b", "c")
