"""Fetching with npm: what is taken out of a package's tar, and one line where npm is missing or fails."""

import io
import os
import tarfile

import pytest

from agd_core.basics.errors import InputError
from agd_core.pretraining.emoji.fetching import fetch_packages, unpack
from agd_core.pretraining.emoji.packages import PACKAGES, PARTS
from tests.emoji_packages import icons_file, write_package

NOTO = PACKAGES[0]


def packed(path, members):
    """A tar of members: bytes, or a ready TarInfo."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = b"" if isinstance(content, tarfile.TarInfo) else content
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def whole(tmp_path):
    folder = write_package(tmp_path / "made", NOTO, icons_file(0))
    return {f"package/{part}": (folder / part).read_bytes() for part in PARTS}


def fake_npm(folder, script):
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    return folder


def test_only_the_parts_come_out_and_nothing_lands_outside(tmp_path):
    members = whole(tmp_path) | {"../outside": b"x", str(tmp_path / "absolute"): b"x", "package/index.js": b"x"}
    unpack(packed(tmp_path / "a.tgz", members), tmp_path / "there" / "noto")
    assert sorted(os.listdir(tmp_path / "there" / "noto")) == sorted(PARTS)
    assert not (tmp_path / "absolute").exists()
    assert not (tmp_path / "there" / "outside").exists()


def test_a_link_is_no_part(tmp_path):
    members = whole(tmp_path) | {"package/icons.json": link("package/icons.json", "/etc/passwd")}
    with pytest.raises(InputError, match=r"no npm package: icons.json is no plain file"):
        unpack(packed(tmp_path / "a.tgz", members), tmp_path / "noto")
    assert not (tmp_path / "noto").exists()


def test_a_missing_part_and_a_broken_tar_are_named(tmp_path):
    members = whole(tmp_path)
    del members["package/info.json"]
    with pytest.raises(InputError, match="is no icon set"):
        unpack(packed(tmp_path / "a.tgz", members), tmp_path / "noto")
    (tmp_path / "b.tgz").write_bytes(b"no tar")
    with pytest.raises(InputError, match="no npm package"):
        unpack(tmp_path / "b.tgz", tmp_path / "noto")


def test_npm_is_asked_for_the_tables_version_once(tmp_path, monkeypatch):
    tar = packed(tmp_path / "a.tgz", whole(tmp_path))
    bin_folder = fake_npm(tmp_path / "bin", f'echo "$@" >> {tmp_path}/asked; cp {tar} ./noto.tgz')
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    said = []
    for _ in range(2):
        fetch_packages(tmp_path / "got", said.append, [NOTO])
    assert (tmp_path / "asked").read_text() == "pack --ignore-scripts --silent @iconify-json/noto@1.2.9\n"
    assert sorted(os.listdir(tmp_path / "got" / "noto")) == sorted(PARTS)
    assert said == ["emoji: fetching @iconify-json/noto 1.2.9 (Apache-2.0)"]


def test_without_npm_one_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"^npm is not installed.*--data FOLDER"):
        fetch_packages(tmp_path / "got", print)


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo 'no network' >&2; exit 7", "no network"), ("exit 7", "exit code 7"), ("true", "left 0 packages")],
)
def test_npm_that_fails_is_quoted_in_one_line(tmp_path, monkeypatch, script, said):
    monkeypatch.setenv("PATH", f"{fake_npm(tmp_path / 'bin', script)}:{os.environ['PATH']}")
    with pytest.raises(InputError, match=said) as problem:
        fetch_packages(tmp_path / "got", lambda line: None)
    assert "\n" not in str(problem.value)
