"""Where a stage may work, and what is said where it cannot."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from agd_core.basics.errors import InputError
from flows.cli.options import one_line
from flows.workplace import Workplace, output_folder


def test_a_name_that_is_not_utf_8_is_refused_and_nothing_is_made(tmp_path):
    with pytest.raises(InputError, match="not UTF-8"):
        output_folder(tmp_path / os.fsdecode(b"caf\xe9"))
    assert list(tmp_path.iterdir()) == []
    assert output_folder(tmp_path / "café [x] *\n'").is_dir()


def test_small_sizes_are_told_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1500))
    with pytest.raises(InputError, match=r"needs 400\.0 kB in .*, 1\.5 kB are free"):
        Workplace(tmp_path).require_space(400_000, "this")
    with pytest.raises(InputError, match="needs 70,000 MB in "):
        Workplace(tmp_path).require_space(70_000_000_000, "this")


def make(place):
    return place.produce("made", {"a": 1}, lambda artefact: (artefact.path / "file").write_text("x") and None)


def test_what_is_finished_in_a_read_only_folder_is_reused_and_nothing_is_written(tmp_path, monkeypatch):
    made = make(Workplace(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert make(Workplace(output_folder(tmp_path))) == made
    with pytest.raises(InputError, match="cannot be written to, and other is not done there"):
        Workplace(tmp_path).produce("other", {"a": 1}, lambda artefact: None)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(InputError, match="cannot be written to"):
        output_folder(tmp_path / "artefacts")


def refused(error):
    with pytest.raises(typer.Exit) as ended, one_line(Path("out")):
        raise error
    return ended.value.exit_code


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_no_more_is_one_line_with_a_path_and_code_1(number, capsys):
    assert refused(OSError(number, os.strerror(number), "out/file")) == 1
    assert refused(OSError(number, os.strerror(number))) == 1
    named, unnamed = capsys.readouterr().err.splitlines()
    assert "out/file" in named
    assert unnamed.endswith("working in out")
