import errno
import os
import resource
import stat
from contextlib import contextmanager

import pytest
import torch

from agd_core.basics.atomic import replacing_folder, sync_folder, write_bytes, write_json
from agd_core.basics.checkpoint import save_tensors


def synced_kinds(monkeypatch):
    kinds, real = [], os.fsync

    def fsync(descriptor):
        kinds.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return kinds


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5000])
def test_the_file_holds_the_data_and_nothing_else_is_left(tmp_path, data):
    path = tmp_path / "new" / "deep" / "file.json"
    write_bytes(data, path)
    assert path.read_bytes() == data
    assert list(path.parent.iterdir()) == [path]


def test_an_older_file_is_replaced_not_rewritten(tmp_path):
    path = tmp_path / "file"
    write_bytes(b"old and longer", path)
    with path.open("rb") as reader:
        write_bytes(b"new", path)
        assert reader.read() == b"old and longer"
    assert path.read_bytes() == b"new"


def test_a_write_that_fails_leaves_the_older_file(tmp_path):
    path = tmp_path / "file"
    write_bytes(b"old", path)
    with pytest.raises(TypeError):
        write_bytes("text", path)
    assert path.read_bytes() == b"old"


def test_a_partial_file_of_a_killed_process_is_overwritten(tmp_path):
    (tmp_path / f"file.{os.getpid()}.partial").write_bytes(b"torn and much longer than the data")
    write_bytes(b"data", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"data"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_bytes_are_on_disk_before_the_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    kinds, path = synced_kinds(monkeypatch), tmp_path / "file"
    write_bytes(b"data", path)
    assert kinds == ["file", "folder"]


def test_nothing_has_the_final_name_while_bytes_may_still_be_lost(tmp_path, monkeypatch):
    path, seen, real = tmp_path / "file", [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(path.exists()) or real(descriptor))
    write_bytes(b"data", path)
    assert seen == [False, True]


def test_what_is_missing_cannot_be_synced(tmp_path):
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "missing")


@contextmanager
def files_no_longer_than(length):
    """The kernel refuses longer files, which is what a full disk is to a program."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


WRITERS = {
    "bytes": lambda path: write_bytes(b"x" * 100_000, path),
    "json": lambda path: write_json(["x"] * 100_000, path),
    "tensors": lambda path: save_tensors({"weights": torch.ones(100_000)}, path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_disk_that_takes_no_more_is_one_error_with_the_path_and_leaves_nothing(tmp_path, write):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with files_no_longer_than(50_000), pytest.raises(OSError, match="File too large") as raised:
        write(path)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"old")]
    write(path)
    assert path.stat().st_size > 50_000


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_folder_that_cannot_be_made_names_the_file(tmp_path, write):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(OSError, match="taken") as raised:
        write(tmp_path / "taken" / "file")
    assert raised.value.filename == str(tmp_path / "taken" / "file")


def test_tensors_survive_a_power_cut_too(tmp_path, monkeypatch):
    kinds = synced_kinds(monkeypatch)
    save_tensors({"weights": torch.ones(3)}, tmp_path / "file")
    assert kinds == ["file", "folder"]


def filled(folder, **files):
    with replacing_folder(folder) as partial:
        for name, text in files.items():
            (partial / name).write_text(text)


def held(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_holds_what_was_written_and_nothing_of_the_older_one(tmp_path):
    filled(tmp_path / "new" / "model", first="1", second="2")
    filled(tmp_path / "new" / "model", first="3")
    assert held(tmp_path / "new" / "model") == {"first": "3"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


def test_a_folder_whose_writing_fails_is_the_older_one(tmp_path):
    filled(tmp_path / "model", first="1")
    with pytest.raises(KeyError), replacing_folder(tmp_path / "model") as partial:
        (partial / "first").write_text("2")
        raise KeyError
    assert held(tmp_path / "model") == {"first": "1"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_killed_processes_left_beside_a_folder_goes(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    filled(elsewhere, kept="1")
    for ending in ("partial", "old"):
        (tmp_path / f".model.{ending}").mkdir()
        (tmp_path / f".model.{ending}" / "torn").write_text("half")
    filled(tmp_path / "model", first="1")
    assert held(tmp_path / "model") == {"first": "1"}
    (tmp_path / ".model.partial").symlink_to(elsewhere)
    filled(tmp_path / "model", first="2")
    assert held(tmp_path / "model") == {"first": "2"}
    assert held(elsewhere) == {"kept": "1"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "model"]


def test_all_of_a_folder_is_on_disk_before_its_name_is(tmp_path, monkeypatch):
    kinds = synced_kinds(monkeypatch)
    filled(tmp_path / "model", first="1", second="2")
    assert kinds == ["file", "file", "folder", "folder"]
