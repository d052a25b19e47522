"""Links, pipes and names that lead out of a store: one line each, never waited for, and nothing outside is touched."""

import os

import pytest

from agd_core.basics.errors import InputError
from storage.names import PLAN
from storage.objects import LocalObjects
from storage.trajectories.markers import marker_key
from storage.trajectories.verification import repair_store, store_problems
from tests.storage.contract import shard_key

pytestmark = pytest.mark.usefixtures("little_memory")

LINKED = [PLAN, marker_key(0), shard_key(0), "cond/pooled/c/0/0", "zarr.json"]


@pytest.mark.parametrize("key", LINKED)
@pytest.mark.parametrize("make", ["link", "pipe", "folder", "loop"])
def test_what_is_no_file_at_a_key_is_one_line_and_never_waited_for(store, key, make):
    root, outside = store.objects.root, store.objects.root.parent / "outside"
    (root / key).rename(outside)
    before = outside.read_bytes()
    {
        "link": lambda: (root / key).symlink_to(outside),
        "pipe": lambda: os.mkfifo(root / key),
        "folder": (root / key).mkdir,
        "loop": lambda: (root / key).symlink_to(root / key),
    }[make]()
    problems = store_problems(LocalObjects(root))
    assert len(problems) == 1, problems
    assert "no regular file" in problems[0]
    repair_store(LocalObjects(root))
    assert outside.read_bytes() == before
    assert os.path.lexists(root / key) == (make == "folder")


@pytest.mark.parametrize("folder", ["latents", "index", "cond", "cond/pooled"])
def test_a_folder_of_a_store_that_is_a_link_is_not_read(store, folder):
    root, outside = store.objects.root, store.objects.root.parent / "outside"
    (root / folder).rename(outside)
    (root / folder).symlink_to(outside)
    before = sorted(outside.rglob("*"))
    try:
        problems = store_problems(LocalObjects(root))
        repair_store(LocalObjects(root))
    except InputError as error:
        problems = [str(error)]
    assert all("is a link" in problem for problem in problems)
    assert problems
    assert sorted(outside.rglob("*")) == before


KEYS = ["../outside", "/etc/passwd", "a/../../outside", "", ".", "a//b", "a\nb", "a/", "a\0b"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("ask", ["read", "size", "delete", "put", "create", "take"])
def test_a_key_that_is_no_plain_name_reaches_nothing(tmp_path, key, ask):
    (tmp_path / "outside").write_text("x")
    objects = LocalObjects(tmp_path / "root")
    more = {"put": (b"y",), "create": (b"y",), "take": (LocalObjects(tmp_path),)}.get(ask, ())
    with pytest.raises(InputError, match="allowed are plain names"):
        getattr(objects, ask)(key, *more)
    assert (tmp_path / "outside").read_text() == "x"
    assert not (tmp_path / "root").exists()


def test_only_partial_files_of_our_writers_are_removed(tmp_path):
    for name in ("download.partial", "c.1.12-ab3f.partial"):
        (tmp_path / name).write_text("x")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "c.2.12-ab3f.partial").write_text("x")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "c.3.12-ab3f.partial").symlink_to(tmp_path / "download.partial")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "outside")
    assert LocalObjects(tmp_path / "store").remove_abandoned() == []
    assert LocalObjects(tmp_path).remove_abandoned() == ["c.1.12-ab3f.partial", "outside/c.2.12-ab3f.partial"]
    assert (tmp_path / "download.partial").exists()
