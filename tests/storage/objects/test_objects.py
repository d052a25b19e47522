"""Folders and memory as places for objects; what is special about folders."""

import errno
import os

import numpy as np
import pytest

from storage.names import PLAN
from storage.objects import LocalObjects, MemoryObjects
from storage.trajectories.markers import marker_key
from storage.trajectories.shards import crc_bytes
from storage.trajectories.verification import store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import (
    make_plan,
    shard_key,
    write,
    write_missing,
)
from tests.storage.zarr_tools import (
    ONE_STEP,
    content,
    in_folder,
    leave_orphans,
    provenance,
)


def test_partial_files_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path):
    objects = LocalObjects(tmp_path)
    dead = tmp_path / "latents" / "c.1.1-abc.partial"
    with objects.stage("latents/c.0", 4) as staged:
        staged.write(0, b"1234")
        dead.write_bytes(b"half")
        assert LocalObjects(tmp_path).remove_abandoned() == ["latents/c.1.1-abc.partial"]
        assert objects.keys("latents") == []
        assert staged.publish()
    assert objects.read("latents/c.0") == b"1234"
    assert list(tmp_path.rglob("*.partial")) == []


def test_an_abandoned_second_name_leaves_the_object_alone(tmp_path):
    """A writer that was killed between linking the object and dropping the partial name."""
    objects = LocalObjects(tmp_path)
    objects.put("a/b", b"1234")
    os.link(tmp_path / "a" / "b", tmp_path / "a" / "b.1-abc.partial")
    assert objects.remove_abandoned() == ["a/b.1-abc.partial"]
    assert objects.read("a/b") == b"1234"


@pytest.mark.parametrize("where", [LocalObjects, lambda root: MemoryObjects()], ids=["local", "memory"])
def test_an_object_appears_whole_once_and_is_replaced_at_once(tmp_path, where):
    objects = where(tmp_path)
    assert objects.creates_exclusively()
    assert objects.keys("a") == []
    assert objects.size("a/b") is None
    with objects.stage("a/b", 4) as staged, objects.stage("a/b", 4) as rival:
        staged.write(2, b"3", np.array([52], np.uint8))
        rival.write(0, b"5678")
        staged.write(0, b"12")
        assert staged.checksum() == int.from_bytes(crc_bytes(b"1234"), "little")
        assert objects.keys("a") == []
        assert staged.publish()
        assert not rival.publish()
    assert objects.keys("a") == ["a/b"]
    assert not objects.create("a/b", b"x")
    assert objects.read("a/b") == b"1234"
    assert objects.read("a/b", 1, 2) == b"23"
    objects.put("a/b", b"89")
    assert objects.size("a/b") == 2
    objects.delete("a/b")
    objects.delete("a/b")
    assert objects.keys("a") == []
    with pytest.raises(FileNotFoundError):
        objects.read("a/b")


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK])
def test_file_systems_without_hard_links_work_too(tmp_path, monkeypatch, code):
    write_missing(in_folder(tmp_path / "with"))

    def no_links(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", no_links)
    store = write_missing(in_folder(tmp_path / "without"))
    assert content(tmp_path / "without") == content(tmp_path / "with")
    assert not store.objects.create(PLAN, b"another")
    assert store_problems(store.objects) == []
    assert list(tmp_path.rglob("*.partial")) == []
    leave_orphans(in_folder(tmp_path / "orphans"), 0)
    assert provenance(write_missing(in_folder(tmp_path / "orphans")))[0] == ["adopted", "adopted"]


def test_another_error_of_a_link_is_raised(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO), "here")

    monkeypatch.setattr(os, "link", broken)
    with pytest.raises(OSError, match="Input/output error"):
        LocalObjects(tmp_path).create("a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_everything_is_on_disk_before_the_marker_is(tmp_path, monkeypatch):
    """fsync of every file and of its folder before its marker's name appears."""
    store, marker, seen, real = in_folder(tmp_path), tmp_path / marker_key(0), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(marker.exists()) or real(descriptor))
    write(store, 0)
    assert seen == [False] * (len(seen) - 1) + [True]
    assert len(seen) >= 2 * 2 + 2


def test_a_place_that_overwrites_is_warned_about_and_recorded(monkeypatch):
    objects = MemoryObjects()
    monkeypatch.setattr(objects, "creates_exclusively", lambda: False)
    with pytest.warns(UserWarning, match="two writers on one unit rely on leases"):
        store = ZarrTrajectoryStore.prepare(objects, make_plan())
    assert b'"conditional_create": false' in objects.read("zarr.json")
    write_missing(store)
    assert store_problems(objects) == []


@pytest.mark.parametrize("local", [True, False])
def test_a_remote_store_is_not_read_whole_to_resume(monkeypatch, local):
    objects = MemoryObjects()
    store = write_missing(ZarrTrajectoryStore.prepare(objects, make_plan(**ONE_STEP)))
    objects.local, read, seen = local, objects.read, []

    def counted(key, *where):
        data = read(key, *where)
        seen.append(len(data) if key == shard_key(0) else 0)
        return data

    monkeypatch.setattr(objects, "read", counted)
    assert store.missing_units() == []
    assert (sum(seen) >= store.layout.size(0)) is local
