"""A list that cannot be used is named in one clear line."""

import gzip
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from agd_core.basics.errors import InputError
from storage.sources import read_prompts
from storage.sources.texts import MOST_CHARACTERS
from tests.storage.sources.prompt_files import (
    PROMPTS,
    json_members,
    text_members,
    write_bytes,
    write_parquet,
    write_tar,
    write_text,
)

LONG = "x" * (MOST_CHARACTERS + 1)


def cut(place, length):
    with open(place, "r+b") as opened:
        opened.truncate(length)
    return place


def empty(path):
    path.mkdir()
    return str(path)


def invalid_utf8(path):
    column = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\4\0\0\0\6\0\0\0"), pa.py_buffer(b"fine\xff\xfe"))
    return write_parquet(path, caption=column)


def torn_name(path):
    write_parquet(path, caption=["a"])
    return write_bytes(path, path.read_bytes().replace(b"caption", b"\xffaption"))


def document(path, data):
    return write_tar(path, ("0.json", data))


BAD = {
    "nothing there": (lambda p: str(p / "absent"), "absent does not exist; allowed are a .txt file"),
    "no place": (lambda p: "", "'' does not exist"),
    "no such text": (lambda p: str(p / "absent.txt"), "{}/absent.txt does not exist"),
    "no such tar": (lambda p: str(p / "absent.tar"), "{}/absent.tar does not exist"),
    "no such parquet": (lambda p: str(p / "absent.parquet"), "{}/absent.parquet does not exist"),
    "a URL": (lambda p: "s3://bucket/prompts.txt", "s3:/bucket/prompts.txt does not exist"),
    "missing shard": (
        lambda p: write_tar(p / "0.tar", *text_members("a")).replace("0.tar", "{0..3}.tar"),
        "{}/1.tar does not exist",
    ),
    "pattern without files": (lambda p: str(p / "*.txt"), "*.txt does not exist"),
    "another suffix": (lambda p: write_bytes(p / "a.csv", b"a"), "a.csv is of no known kind; allowed are a .txt file"),
    "empty folder": (lambda p: empty(p / "e"), "/e is of no known kind; allowed are a .txt file"),
    "empty text": (lambda p: write_bytes(p / "a.txt", b""), "a.txt holds no prompts; allowed are a .txt file"),
    "comments only": (lambda p: write_text(p / "a.txt", ["# a", "", " "]), "a.txt holds no prompts"),
    "empty table": (lambda p: write_parquet(p / "a.parquet", caption=pa.array([], pa.string())), "holds no prompts"),
    "tar of images only": (lambda p: write_tar(p / "a.tar", ("0.jpg", b"x")), "a.tar holds no prompts"),
    "text in Latin-1": (
        lambda p: write_bytes(p / "a.txt", b"a\nb\xe4\n"),
        "a.txt, line 2 is not UTF-8: byte 1 is 0xe4",
    ),
    "text in UTF-16": (lambda p: write_bytes(p / "a.txt", "a".encode("utf-16")), "a.txt, line 1 is not UTF-8"),
    "member in Latin-1": (lambda p: write_tar(p / "a.tar", ("7.txt", b"\xe4")), "a.tar/7.txt is not UTF-8"),
    "JSON in Latin-1": (lambda p: document(p / "a.tar", b'{"caption": "\xe4"}'), "a.tar/0.json is not UTF-8"),
    "column in Latin-1": (lambda p: invalid_utf8(p / "a.parquet"), "a.parquet, row 1, column caption is not UTF-8"),
    "torn parquet": (lambda p: cut(write_parquet(p / "a.parquet", text=["a"]), 90), "a.parquet is no whole Parquet"),
    "torn column name": (lambda p: torn_name(p / "a.parquet"), "a.parquet is no whole Parquet file: 'utf-8' codec"),
    "no parquet": (lambda p: write_bytes(p / "a.parquet", b"a\nb\n"), "a.parquet is no whole Parquet file"),
    "compressed tar": (lambda p: write_bytes(p / "a.tar", gzip.compress(bytes(9999))), "a.tar is no whole tar without"),
    "cut tar": (lambda p: cut(write_tar(p / "a.tar", *text_members("ab")), 2048), "a.tar is no whole tar"),
    "no text column": (
        lambda p: write_parquet(p / "a.parquet", image=[b""], Caption=["a"]),
        "no column of texts (caption, captions, text, prompt, sentences) in every file; the columns are image, Caption",
    ),
    "missing text": (
        lambda p: write_parquet(p / "a.parquet", caption=["a", "b", "c", "d", None]),
        "a.parquet, row 4, column caption holds no text; allowed are a text or a list of texts",
    ),
    "empty list of texts": (lambda p: write_parquet(p / "a.parquet", captions=[["a"], []]), "row 1, column captions"),
    "numbers": (lambda p: write_parquet(p / "a.parquet", text=[1]), "row 0, column text holds no text"),
    "JSON without text": (
        lambda p: document(p / "a.tar", b'{"number": 1, "a\\nb": 2}'),
        "a.tar/0.json has no text (caption, prompt, text); its fields are 'number', 'a\\nb'",
    ),
    "JSON of a list": (
        lambda p: document(p / "a.tar", b"[1]"),
        "0.json is no JSON object with a field caption, prompt",
    ),
    "JSON of a number": (lambda p: document(p / "a.tar", b'{"text": 1}'), "0.json, field text holds no text"),
    "no JSON": (lambda p: document(p / "a.tar", b"{"), "a.tar/0.json is no JSON: "),
    "deep JSON": (lambda p: document(p / "a.tar", b"[" * 100_000), "a.tar/0.json is nested deeper than 64"),
    "large member": (lambda p: write_tar(p / "a.tar", ("0.txt", b"x" * (1 << 21))), "a.tar/0.txt is larger than 1 MB"),
    "long line": (
        lambda p: write_text(p / "a.txt", ["a", LONG]),
        "a.txt, line 2 has 10001 characters; allowed are 10000",
    ),
    "endless line": (lambda p: write_bytes(p / "a.txt", b"x" * (1 << 21)), "a.txt, line 1 is longer than 1 MB"),
    "long cell": (lambda p: write_parquet(p / "a.parquet", text=[LONG]), "row 0, column text has 10001 characters"),
    "long member": (lambda p: write_tar(p / "a.tar", ("0.txt", LONG.encode())), "a.tar/0.txt has 10001 characters"),
    "tab": (
        lambda p: write_text(p / "a.txt", ["17\ta cat"]),
        "line 1 holds the control character U+0009, its character 3",
    ),
    "NUL": (lambda p: write_parquet(p / "a.parquet", text=["a\0b"]), "column text holds the control character U+0000"),
    "two lines": (lambda p: write_tar(p / "a.tar", ("0.txt", b"a\nb\n")), "0.txt holds the control character U+000A"),
    "half a pair": (
        lambda p: document(p / "a.tar", json.dumps({"text": "\ud83d"}).encode()),
        "a.tar/0.json holds the control character U+D83D",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named_in_one_line(case, tmp_path):
    make, message = BAD[case]
    place = make(tmp_path)
    with pytest.raises(InputError) as problem:
        read_prompts(place)
    assert message.replace("{}", str(tmp_path)) in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_text_of_the_greatest_length_is_a_prompt(tmp_path):
    texts = [LONG[:-1], "ä" * MOST_CHARACTERS]
    assert read_prompts(write_text(tmp_path / "a.txt", texts)) == tuple(texts)


def test_no_rights_to_read_are_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    place = write_text(tmp_path / "a.txt", ["a"])
    monkeypatch.setattr("agd_core.basics.safe_files.os.open", refuse)
    with pytest.raises(InputError, match=r"a.txt cannot be read: Permission denied"):
        read_prompts(place)


@pytest.mark.parametrize("kind", ["tar", "JSON", "parquet"])
def test_flipped_bytes_give_prompts_or_a_problem(kind, tmp_path):
    """Never another error, whatever is torn."""
    make = {
        "tar": lambda path: write_tar(path.with_suffix(".tar"), *text_members(PROMPTS)),
        "JSON": lambda path: write_tar(path.with_suffix(".tar"), *json_members(PROMPTS)),
        "parquet": lambda path: write_parquet(path.with_suffix(".parquet"), caption=list(PROMPTS)),
    }
    place = make[kind](tmp_path / "a")
    whole, rng = Path(place).read_bytes(), np.random.default_rng(0)
    outcomes = set()
    for _ in range(150):
        torn = np.frombuffer(whole, np.uint8).copy()
        torn[rng.integers(len(torn), size=2)] = rng.integers(256, size=2)
        Path(place).write_bytes(torn.tobytes())
        with suppress(InputError):
            assert read_prompts(place)
            outcomes.add("prompts")
            continue
        outcomes.add("problem")
    assert outcomes == {"prompts", "problem"}
