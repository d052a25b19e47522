"""Resuming a Zarr store after anything: refusals, orphans, and accidents in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import kill_fuzz
import numpy as np
import pytest

from storage.errors import OtherContent
from storage.objects import LocalObjects, MemoryObjects
from storage.trajectories import zarr_store
from storage.trajectories.markers import marker_key
from storage.trajectories.shards import crc_bytes
from storage.trajectories.verification import store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.soak import short
from tests.storage.contract import (
    NOT_FINITE,
    assert_same_bits,
    latents_of,
    make_plan,
    put_all,
    shard_key,
    write_missing,
)
from tests.storage.zarr_tools import change, content, in_folder, leave_orphans, provenance, unmarked


def test_another_identity_is_refused_and_every_difference_is_named(tmp_path):
    theirs = {"base_model": "x", "collect": {"seed": 0, "guidance": {"min": 1.0, "max": 5.0}}, "list": (1, 2)}
    ours = {"base_model": "x", "collect": {"seed": 1, "guidance": {"min": 1.0}}, "list": [1, 2], "extra": True}
    store = write_missing(in_folder(tmp_path, make_plan(identity=theirs)))
    before = content(tmp_path)
    with pytest.raises(OtherContent) as refused:
        in_folder(tmp_path, make_plan(identity=ours))
    told = str(refused.value)
    assert "collect.guidance.max 5.0 there, None asked for" in told
    assert "collect.seed 0 there, 1 asked for" in told
    assert "extra None there, True asked for" in told
    assert "list" not in told
    assert "base_model" not in told
    assert str(tmp_path) in told
    assert content(tmp_path) == before
    assert store.missing_units() == []


def test_another_plan_of_the_same_settings_is_refused(tmp_path):
    in_folder(tmp_path)
    with pytest.raises(OtherContent, match="its plan does not"):
        in_folder(tmp_path, make_plan(7))


def put_nan(path):
    """A chunk that holds a NaN, with the right checksum."""
    data = bytearray(path.read_bytes())
    chunk = 3 * 2 * 18 * 2
    data[:2] = NOT_FINITE["float16"][2].to_bytes(2, "little")
    data[chunk : chunk + 4] = crc_bytes(bytes(data[:chunk]))
    path.write_bytes(data)


ORPHAN_DAMAGE = {
    "first byte": lambda path: change(path, 0),
    "checksum of a chunk": lambda path: change(path, 3 * 2 * 18 * 2),
    "label": lambda path: change(path, -60),
    "index": lambda path: change(path, -10),
    "last byte": lambda path: change(path, -1),
    "cut": lambda path: os.truncate(path, 100),
    "one byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "not finite": put_nan,
    "another place's": lambda path: path.write_bytes((path.parent / Path(shard_key(1)).name).read_bytes()),
}


@pytest.mark.parametrize("damage", ORPHAN_DAMAGE)
def test_a_damaged_orphan_is_done_again(tmp_path, damage):
    store = in_folder(tmp_path)
    leave_orphans(store, 0)
    before = content(tmp_path)
    ORPHAN_DAMAGE[damage](tmp_path / shard_key(0))
    assert content(tmp_path) != before
    with store.write_unit(0) as writer:
        assert [row.index for row in writer.wanted] == [0, 1]
        put_all(writer, store.plan)
    assert content(tmp_path) == before
    assert provenance(write_missing(store))[0] == ["new", "adopted"]


@pytest.fixture(scope="module", params=short([9, 1]))
def every(request):
    """A writer is killed before each of so many file operations."""
    return request.param


@pytest.fixture(scope="module")
def accidents(every, tmp_path_factory):
    """What `kill_fuzz` did: lines by mode, each (store, how its writers ended), and what was said."""
    root = tmp_path_factory.mktemp("accidents")
    command = [sys.executable, kill_fuzz.__file__, str(root), "full", "forbidden", "rivals", "race", "moments"]
    environment = os.environ | {"PYTHONPATH": str(Path(zarr_store.__file__).parents[2])}
    done = subprocess.run(
        [*command, f"growth={every}", f"operations={every}"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = {}
    for line in done.stdout.splitlines():
        mode, store, *statuses = line.split()
        lines.setdefault(mode, []).append((Path(store), list(map(int, statuses))) if mode != "said" else line)
    return lines


def assert_intact(root, plan):
    store = ZarrTrajectoryStore.prepare(LocalObjects(root), plan)
    assert list(root.rglob("*.partial")) == []
    assert store_problems(store.objects) == []
    expected = unbroken(plan)
    assert content(root) == unmarked(expected.objects.objects)
    assert store.content_digest() == expected.content_digest()


UNBROKEN = {}


def unbroken(plan):
    if plan.dataset_id not in UNBROKEN:
        UNBROKEN[plan.dataset_id] = write_missing(ZarrTrajectoryStore.prepare(MemoryObjects(), plan))
    return UNBROKEN[plan.dataset_id]


def test_a_writer_killed_before_any_file_operation_is_continued_to_the_same_bytes(accidents, every):
    *killed, last = accidents["operations"]
    plan = kill_fuzz.small_plan()
    assert len(killed) > 50 // every
    assert [statuses for _, statuses in killed] == [[-9]] * len(killed)
    assert last[1] == [0]
    adopted = 0
    for root, _ in [*killed, last]:
        marked = [int(path.stem.removeprefix("u-")) for path in root.glob("index/u-*.parquet")]
        store = ZarrTrajectoryStore.prepare(LocalObjects(root), plan)
        assert list(root.rglob("*.partial")) == []
        assert store.missing_units() == [unit for unit in range(plan.units) if unit not in marked]
        attempts = [(root / marker_key(unit)).read_bytes() for unit in marked]
        assert_intact(write_missing(store).objects.root, plan)
        assert attempts == [(root / marker_key(unit)).read_bytes() for unit in marked]
        adopted += sum(shard == "adopted" for unit in provenance(store) for shard in unit)
    assert adopted > 3 // every


def test_a_store_killed_while_it_grows_ends_with_the_same_bytes_and_leaves_the_other_alone(accidents, every):
    *killed, last = accidents["growth"]
    plan, source = kill_fuzz.small_plan(5), last[0].parent / "source"
    assert len(killed) > 50 // every
    assert [statuses for _, statuses in [*killed, last]] == [[-9]] * len(killed) + [[0]]
    assert provenance(ZarrTrajectoryStore.open(LocalObjects(last[0]))) == [["adopted"] * 2] * 2 + [["new"]]
    for root, _ in [*killed, last]:
        store = kill_fuzz.grow_store(root, source)
        assert_intact(root, plan)
        assert provenance(store)[:2] == [["adopted"] * 2] * 2
    assert_intact(source, kill_fuzz.small_plan(4))


def test_writers_killed_at_any_moment_leave_nothing_torn(accidents):
    ((root, statuses),) = accidents["moments"]
    assert statuses == [0]
    assert_intact(root, kill_fuzz.LARGE)


def test_two_processes_prepare_and_write_one_store(accidents):
    for root, statuses in accidents["race"]:
        assert statuses == [0, 0]
        assert_intact(root, kill_fuzz.LARGE)


def test_of_two_settings_at_once_one_wins_whole(accidents):
    for root, statuses in accidents["rivals"]:
        assert sorted(statuses) == [0, kill_fuzz.REFUSED]
        plans = [make_plan(identity={"collect": {"seed": seed}}) for seed in range(2)]
        assert_intact(root, plans[statuses.index(0)])
    assert sum("collect.seed" in line for line in accidents["said"]) == len(accidents["rivals"])


@pytest.mark.parametrize(("mode", "message"), [("full", "File too large|No space"), ("forbidden", "Permission denied")])
def test_a_place_that_fails_is_named_and_committed_units_stay_intact(accidents, mode, message):
    ((root, statuses),) = accidents[mode]
    assert statuses == [kill_fuzz.REFUSED]
    said = [line for line in accidents["said"] if f"{root}/" in line]
    assert len(said) == 1
    assert any(words in said[0] for words in message.split("|"))
    assert list(root.rglob("*.partial")) == []
    store = in_folder(root, kill_fuzz.LARGE)
    assert store.missing_units() == [0]
    assert_same_bits(store.read(np.arange(32, 40)).latents, latents_of(store.plan)[32:])
    assert_intact(write_missing(store).objects.root, store.plan)
