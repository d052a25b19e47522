import os
import stat

import pytest

from storage.atomic import sync_folder, write_bytes


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
