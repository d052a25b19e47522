"""Prompt files that were made to hang or to hide, and names that need care."""

import os

import pytest

from agd_core.basics.errors import InputError
from storage.sources import read_prompts
from tests.storage.sources.hostile_files import endless, pipe
from tests.storage.sources.prompt_files import (
    PROMPTS,
    json_members,
    text_members,
    write_bytes,
    write_parquet,
    write_tar,
    write_text,
)

WRITE = {
    "txt": lambda path: write_text(path, PROMPTS[:3]),
    "tar": lambda path: write_tar(path, *text_members(PROMPTS[:3])),
    "parquet": lambda path: write_parquet(path, caption=list(PROMPTS[:3])),
}


@pytest.mark.parametrize("suffix", WRITE)
@pytest.mark.parametrize("make", [pipe, endless])
def test_what_is_no_regular_file_is_never_opened(suffix, make, tmp_path):
    place = make(tmp_path / "p" / f"a.{suffix}")
    for named in (place, str(tmp_path / "p"), place.replace("/a.", "/?.")):
        with pytest.raises(InputError, match=r"is no regular file but a (named pipe|device)$"):
            read_prompts(named)


@pytest.mark.parametrize("suffix", WRITE)
def test_folders_with_brackets_and_names_that_are_not_utf8_are_read(suffix, tmp_path):
    folder = tmp_path / os.fsdecode(b"wds [v2] caf\xe9")
    WRITE[suffix](tmp_path / "plain" / f"part-0.{suffix}")
    (tmp_path / "plain").rename(folder)
    for place in ("", f"/part-*.{suffix}", f"/part-{{0..0}}.{suffix}", f"/part-0.{suffix}"):
        assert read_prompts(f"{folder}{place}") == PROMPTS[:3]


@pytest.mark.parametrize("suffix", WRITE)
def test_links_to_other_disks_are_followed_and_broken_ones_named(suffix, tmp_path):
    WRITE[suffix](tmp_path / "disk2" / f"a.{suffix}")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / f"a.{suffix}").symlink_to(tmp_path / "disk2" / f"a.{suffix}")
    assert read_prompts(str(tmp_path / "p")) == PROMPTS[:3]
    (tmp_path / "p" / f"b.{suffix}").symlink_to("/no/such/disk")
    with pytest.raises(InputError, match=f"b.{suffix} cannot be read: No such file"):
        read_prompts(str(tmp_path / "p"))


def test_a_key_that_stands_twice_is_no_text(tmp_path):
    place = write_tar(tmp_path / "a.tar", ("0.json", b'{"caption": "a", "caption": "b"}'))
    with pytest.raises(InputError, match=r"a.tar/0.json is no JSON: the key 'caption' stands twice"):
        read_prompts(place)


def test_messages_show_what_a_terminal_would_obey(tmp_path):
    place = write_tar(tmp_path / "a.tar", *json_members([1], "\x1b[2J"))
    with pytest.raises(InputError) as problem:
        read_prompts(write_bytes(tmp_path / "a\x1b[2J.txt", b"\xff"))
    assert "\x1b" not in str(problem.value)
    with pytest.raises(InputError) as problem:
        read_prompts(place)
    assert "\x1b" not in str(problem.value)
