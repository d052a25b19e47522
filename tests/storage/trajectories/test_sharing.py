"""Units that stores of the same settings and different lengths have in common, and bringing them over."""

import errno
import os
import sys
from dataclasses import replace

import numpy as np
import pytest

from storage.names import PLAN
from storage.objects import LocalObjects, MemoryObjects
from storage.trajectories.markers import marker_device, marker_key
from storage.trajectories.sharing import shared_units, take_over
from storage.trajectories.verification import repair_store, store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import TIMESTEPS, make_plan, pair_of, shard_key, write, write_missing
from tests.storage.zarr_tools import change, content, in_folder, provenance, swap_chunks

EIGHT, TWELVE = make_plan(32), make_plan(48)
"""Units of four trajectories in two shards."""


def grown(root, source):
    """A store of twelve units with what another has; which units were taken over."""
    store = in_folder(root, TWELVE)
    units = [unit for unit in shared_units(source, TWELVE, store.missing_units()) if take_over(store, source, unit)]
    return store, units


def test_plans_of_the_same_settings_share_the_ids_of_their_full_units():
    assert EIGHT.settings_id == TWELVE.settings_id
    assert EIGHT.unit_ids == TWELVE.unit_ids[:8]
    assert EIGHT.dataset_id != TWELVE.dataset_id
    assert len(set(TWELVE.unit_ids)) == 12
    short = make_plan(30)
    assert short.unit_ids[:7] == TWELVE.unit_ids[:7]
    assert short.unit_ids[7] not in TWELVE.unit_ids


CHANGES = {
    "identity": {"identity": {"collect": {"seed": 1}}},
    "timesteps": {"timesteps": (*TIMESTEPS[:-1], 2.0)},
    "conditions": {"conditions": dict(EIGHT.conditions) | {"pooled": EIGHT.conditions["pooled"] + 1}},
    "type": {"dtype": "bfloat16"},
    "shard": {"shard_trajectories": 4},
    "unit": {"unit_trajectories": 8},
    "latents": {"latent_shape": (3, 2, 3)},
    "variance": {"prediction_slots": 2},
}


@pytest.mark.parametrize("changed", CHANGES)
def test_plans_of_unlike_settings_share_no_unit(changed):
    other = replace(EIGHT, **CHANGES[changed])
    assert not set(other.unit_ids) & set(TWELVE.unit_ids)
    source = write_missing(ZarrTrajectoryStore.prepare(MemoryObjects(), other)).objects
    assert shared_units(source, TWELVE, range(12)) == []
    source.delete(PLAN)
    assert shared_units(source, TWELVE, range(12)) == []


def test_another_row_is_another_unit():
    rows = list(EIGHT.trajectories)
    asked = {"rows": {"condition": 0, "null": 0}}, {"scalars": {"guidance_scale": 9.0}}
    for change_of_row in ({"seed": 1}, *asked, {"steps": (0, 1, 3)}):
        rows[5] = replace(EIGHT.trajectories[5], **change_of_row)
        other = replace(EIGHT, trajectories=tuple(rows))
        assert [ours == theirs for ours, theirs in zip(other.unit_ids, EIGHT.unit_ids, strict=True)] == [
            unit != 1 for unit in range(8)
        ]


def test_a_full_unit_has_the_same_bytes_in_a_longer_store(tmp_path):
    for name, plan in (("eight", EIGHT), ("twelve", TWELVE)):
        write_missing(in_folder(tmp_path / name, plan))
    for shard in range(16):
        key = shard_key(shard)
        assert (tmp_path / "eight" / key).read_bytes() == (tmp_path / "twelve" / key).read_bytes()


def test_a_longer_store_takes_over_links_and_ends_like_a_fresh_one(tmp_path):
    source = write_missing(in_folder(tmp_path / "eight", EIGHT))
    store, taken = grown(tmp_path / "twelve", source.objects)
    assert taken == list(range(8))
    assert store.missing_units() == [8, 9, 10, 11]
    assert all((tmp_path / "twelve" / shard_key(n)).samefile(tmp_path / "eight" / shard_key(n)) for n in range(16))
    write_missing(store)
    fresh = write_missing(in_folder(tmp_path / "fresh", TWELVE))
    assert content(tmp_path / "twelve") == content(tmp_path / "fresh")
    assert store.content_digest() == fresh.content_digest()
    assert store_problems(store.objects) == store_problems(source.objects) == []
    assert provenance(store) == [["adopted"] * 2] * 8 + [["new"] * 2] * 4


def test_a_shorter_store_takes_over_its_full_units_only(tmp_path):
    source = write_missing(in_folder(tmp_path / "twelve", TWELVE))
    store = in_folder(tmp_path / "short", make_plan(30))
    assert shared_units(source.objects, store.plan, store.missing_units()) == list(range(7))
    backwards = write_missing(store).objects
    assert shared_units(backwards, TWELVE, range(12)) == list(range(7))


def test_only_what_is_committed_there_is_shared(tmp_path):
    source = in_folder(tmp_path, EIGHT)
    for unit in (1, 3, 4, 5, 6):
        write(source, unit)
    (tmp_path / marker_key(3)).unlink()
    change(tmp_path / marker_key(4), 500)
    (tmp_path / shard_key(10)).unlink()
    change(tmp_path / shard_key(12), -60)
    assert shared_units(source.objects, TWELVE, range(12)) == [1]
    assert shared_units(source.objects, TWELVE, [0, 2]) == []
    assert shared_units(LocalObjects(tmp_path / "nothing"), TWELVE, range(12)) == []


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: change(path, 300)], ids=["gone", "torn"])
@pytest.mark.parametrize("key", [PLAN, "zarr.json", "latents/zarr.json"])
def test_what_became_of_the_rest_of_the_other_store_does_not_matter(tmp_path, key, damage):
    source = write_missing(in_folder(tmp_path / "eight", EIGHT))
    damage(tmp_path / "eight" / key)
    store, taken = grown(tmp_path / "twelve", source.objects)
    assert taken == list(range(8))
    assert store.missing_units() == [8, 9, 10, 11]


DAMAGE = {
    "bit flipped": lambda path: change(path, 50),
    "chunks swapped": swap_chunks,
    "index": lambda path: change(path, -1),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("where", [LocalObjects, lambda root: MemoryObjects()], ids=["local", "memory"])
def test_a_torn_shard_is_found_out_and_written_anew(tmp_path, where, damage):
    source = write_missing(in_folder(tmp_path / "eight", EIGHT))
    DAMAGE[damage](tmp_path / "eight" / shard_key(5))
    torn = (tmp_path / "eight" / shard_key(5)).read_bytes()
    store = ZarrTrajectoryStore.prepare(where(tmp_path / "twelve"), TWELVE)
    assert [take_over(store, source.objects, unit) for unit in range(8)] == [unit != 2 for unit in range(8)]
    assert store.missing_units() == [2, 8, 9, 10, 11]
    assert store.objects.size(shard_key(5)) is None
    with store.open_unit(2) as writer:
        assert [row.index for row in writer.wanted] == [10, 11]
    fresh = write_missing(ZarrTrajectoryStore.prepare(MemoryObjects(), TWELVE))
    assert write_missing(store).content_digest() == fresh.content_digest()
    assert (tmp_path / "eight" / shard_key(5)).read_bytes() == torn


def test_pairs_of_a_shard_that_was_taken_over_are_ignored(tmp_path):
    source = write_missing(in_folder(tmp_path / "eight", EIGHT))
    with in_folder(tmp_path / "twelve", TWELVE).open_unit(0) as writer:
        writer.take(source.objects)
        assert list(writer.wanted) == []
        writer.put(0, 0, pair_of(TWELVE, 0, 1))
        writer.commit()
    assert (tmp_path / "twelve" / shard_key(0)).samefile(tmp_path / "eight" / shard_key(0))


def test_what_two_others_have_of_a_unit_makes_one_whole(tmp_path):
    others = [write_missing(in_folder(tmp_path / str(number), EIGHT)) for number in range(2)]
    for number, other in enumerate(others):
        change(other.objects.root / shard_key(number), 50)
    store = in_folder(tmp_path / "twelve", TWELVE)
    assert [take_over(store, other.objects, 0) for other in others] == [False, True]
    assert not store.unit_problems(0)


def test_a_damaged_unit_is_mended_from_the_other_store(tmp_path):
    source = write_missing(in_folder(tmp_path / "eight", EIGHT))
    store = write_missing(in_folder(tmp_path / "twelve", TWELVE))
    change(tmp_path / "twelve" / shard_key(3), 50)
    assert store.missing_units() == [1]
    assert take_over(store, source.objects, 1)
    assert store_problems(store.objects) == []


def test_a_shard_that_somebody_published_meanwhile_is_kept(tmp_path, monkeypatch):
    """Another collector's, of other last bits: its marker may vouch for it already."""
    source, rival = write_missing(in_folder(tmp_path / "eight", EIGHT)), in_folder(tmp_path / "twelve", TWELVE)
    store, take = in_folder(tmp_path / "twelve", TWELVE), LocalObjects.take

    def overtaken(self, key, other):
        if rival.misses(0):
            write(rival, 0, seed=1)
        return take(self, key, other)

    monkeypatch.setattr(LocalObjects, "take", overtaken)
    assert take_over(store, source.objects, 0)
    assert not store.unit_problems(0)
    assert (store.read(np.array([0])).latents[0] == pair_of(TWELVE, 0, 0, seed=1)).all()


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_links_do_not_reach_the_bytes_are_copied(tmp_path, monkeypatch, code):
    source = write_missing(in_folder(tmp_path / "eight", EIGHT))

    def no_links(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", no_links)
        if code == errno.EXDEV:
            patch.setattr(os, "link", only_within(tmp_path / "twelve", no_links))
        store, taken = grown(tmp_path / "twelve", source.objects)
    assert taken == list(range(8))
    assert not (tmp_path / "twelve" / shard_key(0)).samefile(tmp_path / "eight" / shard_key(0))
    assert list(tmp_path.rglob("*.partial")) == []
    assert store.missing_units() == [8, 9, 10, 11]


def only_within(root, otherwise, link=os.link):
    """`os.link` on the file system of `root`."""
    return lambda old, new: link(old, new) if str(old).startswith(str(root)) else otherwise()


def test_units_come_from_memory_and_go_there(tmp_path):
    far = write_missing(ZarrTrajectoryStore.prepare(MemoryObjects(), EIGHT))
    near, taken = grown(tmp_path, far.objects)
    assert taken == list(range(8))
    back = ZarrTrajectoryStore.prepare(MemoryObjects(), EIGHT)
    assert all(take_over(back, near.objects, unit) for unit in range(8))
    assert back.content_digest() == far.content_digest()


def test_a_marker_says_what_computed_the_unit_and_not_who_took_it_over(tmp_path):
    source = write_missing(ZarrTrajectoryStore.prepare(LocalObjects(tmp_path / "eight"), EIGHT, "a fast device"))
    store = ZarrTrajectoryStore.prepare(LocalObjects(tmp_path / "twelve"), TWELVE, "a slow device")
    assert take_over(store, source.objects, 0)
    write(store, 8)
    assert [marker_device(store.objects.read(marker_key(unit))) for unit in (0, 8)] == [
        "a fast device",
        "a slow device",
    ]


OPENED: list[tuple[str, int]] = []
"""Files opened for writing, or cut, while the list `WATCHED` holds something."""
WATCHED: list[str] = []


def watch(event, arguments):
    if WATCHED and event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_APPEND):
        OPENED.append(str(arguments[0]))
    if WATCHED and event == "os.truncate":
        OPENED.append(f"truncated {arguments[0]}")


def test_no_shard_is_ever_written_to_once_it_has_its_name(tmp_path):
    """So a hard link is as good as a copy: in everything that is done to a store, only partial files are opened."""
    sys.addaudithook(watch)
    source = write_missing(in_folder(tmp_path / "eight", EIGHT))
    store, _ = grown(tmp_path / "twelve", source.objects)
    before = content(tmp_path / "eight")
    torn = bytearray(before[shard_key(3)])
    torn[50] ^= 1
    WATCHED.append("now")
    try:
        store.objects.put(shard_key(3), bytes(torn))
        assert len(store_problems(store.objects)) == 1 + 4
        write_missing(in_folder(tmp_path / "twelve", TWELVE))
        store.objects.put(shard_key(0), bytes(torn))
        store.objects.delete(shard_key(2))
        assert repair_store(store.objects)
        write_missing(in_folder(tmp_path / "twelve", TWELVE))
    finally:
        WATCHED.clear()
    assert len(OPENED) > 10
    assert [name for name in OPENED if not name.endswith(".partial")] == []
    assert content(tmp_path / "eight") == before
    assert store_problems(store.objects) == store_problems(source.objects) == []


def test_a_disks_fault_under_a_shared_shard_is_seen_and_mended_by_either_store(tmp_path):
    source = write_missing(in_folder(tmp_path / "eight", EIGHT))
    store = write_missing(grown(tmp_path / "twelve", source.objects)[0])
    change(tmp_path / "twelve" / shard_key(3), 50)
    assert (source.missing_units(), store.missing_units()) == ([1], [1])
    write(store, 1)
    assert (source.missing_units(), store.missing_units()) == ([1], [])
    assert take_over(source, store.objects, 1)
    assert store_problems(source.objects) == []
