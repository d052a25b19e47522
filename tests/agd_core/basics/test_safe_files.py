"""The door for files from outside: only regular, bounded, shallow files whose names stay below their folder."""

import json
import os
import socket

import pytest
import torch
from safetensors.torch import save_file

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import (
    MOST_DEPTH,
    MOST_YAML_BYTES,
    confined,
    open_regular,
    open_tensors,
    parse_json,
    parse_yaml,
    printable,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
)


def refused(work, *args):
    with pytest.raises(InputError) as raised:
        work(*args)
    line = str(raised.value)
    assert line.isprintable()
    return line


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "a named pipe" in refused(read_bytes, tmp_path / "pipe", 10)


def test_a_device_is_not_read(tmp_path):
    (tmp_path / "zeros").symlink_to("/dev/zero")
    assert "a device" in refused(read_bytes, tmp_path / "zeros", 10)


def test_a_socket_and_a_folder_are_named_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        assert "a socket" in refused(open_regular, "s")
    assert "a folder" in refused(open_regular, tmp_path)


@pytest.mark.parametrize("name", ["missing", "a\0b", "n" * 300])
def test_what_cannot_be_opened_is_one_line(tmp_path, name):
    assert "cannot be read" in refused(read_bytes, f"{tmp_path}/{name}", 10)


def test_a_file_is_read_up_to_its_limit(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    assert read_bytes(tmp_path / "f", 5) == b"12345"
    assert "larger than 4 bytes" in refused(read_bytes, tmp_path / "f", 4)


def test_a_file_that_lies_about_its_size_is_read_up_to_its_limit():
    assert "larger than 8 bytes" in refused(read_bytes, "/proc/self/status", 8)


def test_an_empty_file_is_empty(tmp_path):
    (tmp_path / "f").touch()
    assert read_bytes(tmp_path / "f", 5) == b""


def test_a_text_is_utf8_with_or_without_a_mark(tmp_path):
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    assert read_text(tmp_path / "f", 10) == "café"
    (tmp_path / "f").write_bytes(b"caf\xe9")
    assert "not UTF-8" in refused(read_text, tmp_path / "f", 10)


@pytest.mark.parametrize("depth", [MOST_DEPTH + 1, 200_000])
def test_json_has_a_largest_depth(depth):
    assert "nested deeper" in refused(parse_json, "[" * depth + "]" * depth, "deep.json")


def test_json_of_the_largest_depth_is_read():
    assert parse_json("[" * MOST_DEPTH + "]" * MOST_DEPTH, "x")


@pytest.mark.parametrize(
    "text", ["", "{", "{'a': 1}", "9" * 5000, '{"a": 1, "a": 2}', '{"x": {"a": 1, "a": 1}}', b"\xff"]
)
def test_damaged_json_is_one_line_that_names_the_file(text):
    assert "some.json" in refused(parse_json, text, "some.json")


def test_json_is_read_from_a_file(tmp_path):
    (tmp_path / "f.json").write_text('{"a": [1, 2.5, null, "é"]}', encoding="utf-8")
    assert read_json(tmp_path / "f.json") == {"a": [1, 2.5, None, "é"]}
    assert "larger than" in refused(read_json, tmp_path / "f.json", 4)


def test_a_repeated_yaml_key_is_named_with_its_line():
    line = refused(parse_yaml, "train: {steps: 7}\ncollect: {}\ntrain: {batch_size: 8}\n", "p.yaml")
    assert [word for word in ("p.yaml", "'train'", "line 3") if word not in line] == []


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 100_000,
        "a: " + "[" * 100 + "]" * 100,
        "a: &a [1]\nb: *a",
        "a: !!python/object/apply:os.system [id]",
        "a: !!int ''",
        "a: 2024-99-99",
        "{[1]: 2}",
        "a: b: c",
        "- a\nb",
        "a: " + "9" * 5000,
        "\x00",
        "--- 1\n--- 2",
    ],
)
def test_crafted_yaml_is_one_line(text):
    assert "p.yaml" in refused(parse_yaml, text, "p.yaml")


def test_yaml_numbers_are_numbers():
    assert parse_yaml("{a: 1e-3, b: 1.0e-3, c: 5, d: -2E+4, e: .5, f: '5', g: 1e, h: v1.2}", "x") == {
        "a": 0.001, "b": 0.001, "c": 5, "d": -20000.0, "e": 0.5, "f": "5", "g": "1e", "h": "v1.2",
    }  # fmt: skip


def test_a_large_yaml_file_is_refused_before_it_is_parsed(tmp_path):
    (tmp_path / "p.yaml").write_text("a" * (MOST_YAML_BYTES + 1))
    assert "larger than" in refused(read_yaml, tmp_path / "p.yaml")


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../../x", "a\0b", "a\nb", "n" * 256, ".", "a/" + "é" * 128]
)
def test_names_that_do_not_stay_below_the_folder_are_refused(tmp_path, name):
    refused(confined, tmp_path, name)


def test_a_link_is_followed_below_the_folder_only(tmp_path):
    (tmp_path / "gift").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "gift" / "inside").write_text("y")
    (tmp_path / "gift" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "gift" / "up").symlink_to("..")
    (tmp_path / "gift" / "in").symlink_to("inside")
    (tmp_path / "gift" / "circle").symlink_to("circle")
    assert confined(tmp_path / "gift", "in").read_text() == "y"
    assert confined(tmp_path / "gift", "new/file") == tmp_path / "gift" / "new" / "file"
    for name in ("out", "up/secret"):
        assert "leads out" in refused(confined, tmp_path / "gift", name)
    refused(confined, tmp_path / "gift", "circle")


def test_a_snapshot_of_the_hub_cache_may_link_to_its_blobs(tmp_path):
    blobs, snapshot = tmp_path / "models--x" / "blobs", tmp_path / "models--x" / "snapshots" / "main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "ab").write_text("weights")
    (snapshot / "adapter.json").symlink_to("../../blobs/ab")
    assert confined(snapshot, "adapter.json").read_text() == "weights"
    (blobs / "cd").symlink_to("/etc/passwd")
    (snapshot / "other").symlink_to("../../blobs/cd")
    assert "leads out" in refused(confined, snapshot, "other")


def test_what_is_printed_cannot_move_the_cursor():
    assert printable("a\x1b[2Jb\nc\u202ed café \udce9") == r"a\x1b[2Jb\nc\u202ed café \udce9"


@pytest.mark.parametrize("text", ["5", "1.5", "true", "null", '"text"'])
def test_a_single_value_is_a_text_too(text):
    assert parse_json(text, "here") == parse_yaml(text, "here") == json.loads(text)


def test_tensors_are_read_one_by_one_from_a_whole_file_of_bounded_size(tmp_path):
    save_file({"a": torch.arange(3)}, path := tmp_path / "t.safetensors")
    with open_tensors(path) as file:
        assert file.get_tensor("a").tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"t.safetensors is larger than 8 bytes"), open_tensors(path, most=8):
        pass
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"t.safetensors is no whole safetensors file: "), open_tensors(path):
        pass


def test_what_a_reader_of_tensors_refuses_itself_stays_as_it_is(tmp_path):
    save_file({"a": torch.arange(3)}, path := tmp_path / "t.safetensors")
    with pytest.raises(InputError, match=r"^too few$"), open_tensors(path):
        raise InputError("too few")
