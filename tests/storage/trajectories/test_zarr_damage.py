"""Damage to a Zarr store: always named, never read, repaired to the same bytes."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage.errors import Damaged, OtherContent
from storage.names import PLAN
from storage.objects import MemoryObjects
from storage.trajectories.markers import marker_key
from storage.trajectories.verification import repair_store, store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.soak import short
from tests.storage.contract import assert_same_bits, latents_of, make_plan, shard_key, write, write_missing
from tests.storage.zarr_tools import (
    ONE_STEP,
    SEVERAL_STEPS,
    change,
    content,
    in_folder,
    opened,
    swap,
    swap_chunks,
    unmarked,
)


def other_dataset(root):
    return write_missing(in_folder(root, make_plan(identity={"collect": {"seed": 1}}))).objects.root


DAMAGE = {
    "shard gone": lambda root: (root / shard_key(0)).unlink(),
    "shard bit flipped": lambda root: change(root / shard_key(0), 50),
    "shard of another place": lambda root: shutil.copy(root / shard_key(1), root / shard_key(0)),
    "shards swapped": lambda root: swap(root / shard_key(0), root / shard_key(1)),
    "chunks swapped": lambda root: swap_chunks(root / shard_key(0)),
    "shard of another dataset": lambda root: shutil.copy(other_dataset(root / "x") / shard_key(0), root / shard_key(0)),
    "marker gone": lambda root: (root / marker_key(0)).unlink(),
    "marker empty": lambda root: os.truncate(root / marker_key(0), 0),
    "marker cut": lambda root: os.truncate(root / marker_key(0), 1000),
    "marker bit flipped": lambda root: change(root / marker_key(0), 500),
    "marker of another unit": lambda root: shutil.copy(root / marker_key(1), root / marker_key(0)),
    "marker of another dataset": lambda root: shutil.copy(
        other_dataset(root / "x") / marker_key(0), root / marker_key(0)
    ),
    "marker is a plan": lambda root: shutil.copy(root / PLAN, root / marker_key(0)),
    "marker is plain parquet": lambda root: pq.write_table(pq.read_table(root / marker_key(0)), root / marker_key(0)),
}


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_unit_and_only_that_unit_is_missing_and_written_again(tmp_path, damage, repair):
    store = write_missing(in_folder(tmp_path / "store"))
    before, digest = content(tmp_path / "store"), store.content_digest()
    DAMAGE[damage](tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "x", ignore_errors=True)
    assert len(store_problems(store.objects)) == (2 if damage == "shards swapped" else 1)
    if repair:
        repair_store(store.objects)
    again = in_folder(tmp_path / "store")
    assert again.missing_units() == [0]
    write(again, 0)
    assert store_problems(again.objects) == []
    assert content(tmp_path / "store") == before
    assert again.content_digest() == digest


def test_shards_and_markers_that_the_plan_does_not_know_are_strangers(tmp_path):
    store = write_missing(in_folder(tmp_path))
    strangers = [shard_key(3), marker_key(2)]
    for key, like in zip(strangers, (shard_key(0), marker_key(0)), strict=True):
        shutil.copy(tmp_path / like, tmp_path / key)
    assert sorted(store_problems(store.objects)) == sorted(
        f"{tmp_path}/{key}: does not belong here" for key in strangers
    )
    assert sorted(repair_store(store.objects)) == sorted(strangers)
    assert store_problems(store.objects) == []


def prepared_keys():
    objects = MemoryObjects()
    ZarrTrajectoryStore.prepare(objects, make_plan())
    return sorted(objects.objects)


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "empty"])
@pytest.mark.parametrize("key", prepared_keys())
def test_damaged_preparation_is_named_and_healed(key, damage):
    objects = MemoryObjects()
    store = write_missing(ZarrTrajectoryStore.prepare(objects, make_plan()))
    before, whole = dict(objects.objects), objects.objects[key]
    torn = {"cut": whole[:-7], "flipped": whole[:9] + bytes([whole[9] ^ 1]) + whole[10:], "empty": b""}
    objects.objects |= {key: torn.get(damage, b"")}
    if damage == "gone":
        del objects.objects[key]
    assert store_problems(objects)[0].startswith(f"memory/{key}: ")
    with pytest.raises((Damaged, FileNotFoundError)):
        ZarrTrajectoryStore.open(objects)
    ZarrTrajectoryStore.prepare(objects, store.plan)
    assert objects.objects == before


def test_a_marker_in_the_plans_place_is_named():
    objects = MemoryObjects()
    write_missing(ZarrTrajectoryStore.prepare(objects, make_plan()))
    objects.objects[PLAN] = objects.objects[marker_key(0)]
    assert store_problems(objects) == [f"memory/{PLAN}: is another kind of file"]


def test_reading_never_goes_past_damage(tmp_path):
    store = write_missing(in_folder(tmp_path, make_plan(**ONE_STEP)))
    chunk = store.layout.stride
    change(tmp_path / shard_key(0), chunk + 5)
    reader, latents = opened(tmp_path), latents_of(store.plan)
    with pytest.raises(Damaged, match=f"{shard_key(0)}: checksum differs at byte {chunk}"):
        reader.read(np.array([0, 1]))
    assert_same_bits(reader.read(np.array([0, 2, 14])).latents, latents[[0, 2, 14]])


@pytest.fixture(scope="module", params=[ONE_STEP, SEVERAL_STEPS], ids=["one-step", "several-steps"])
def complete(request):
    plan = make_plan(**request.param)
    stores = [
        write_missing(ZarrTrajectoryStore.prepare(MemoryObjects(), which))
        for which in (plan, replace(plan, identity={"collect": {"seed": 1}}))
    ]
    return plan, stores[0].objects.objects, stores[1].objects.objects, stores[0].content_digest()


@pytest.mark.parametrize("seed", short(range(7)))
def test_every_random_corruption_is_named_never_read_and_repaired_to_the_same_bytes(complete, seed):
    plan, whole, others, digest = complete
    rng, latents = np.random.default_rng(seed), latents_of(plan)
    for _ in range(40):
        files, what = corrupted(rng, whole, others)
        objects = in_memory(files)
        assert store_problems(objects), what
        assert_reads_nothing_wrong(objects, latents)
        repair_store(objects)
        if what == f"foreign {PLAN}":
            with pytest.raises(OtherContent):
                ZarrTrajectoryStore.prepare(objects, plan)
            continue
        store = write_missing(ZarrTrajectoryStore.prepare(objects, plan))
        assert store_problems(objects) == [], what
        assert unmarked(objects.objects) == unmarked(whole), what
        assert objects.objects.keys() == whole.keys(), what
        assert store.content_digest() == digest, what


def test_the_corruptions_touch_every_file_in_every_way(complete):
    whole, others = complete[1], complete[2]
    rngs = [np.random.default_rng(seed) for seed in range(7)]
    done = {corrupted(rng, whole, others)[1] for rng in rngs for _ in range(40)}
    assert {what.split()[0] for what in done} == {kind.__name__ for kind in CORRUPTIONS}
    assert {what.split()[1] for what in done} == whole.keys()


def test_damage_under_an_open_reader_is_noticed(tmp_path):
    store = write_missing(in_folder(tmp_path, make_plan(**ONE_STEP)))
    reader = opened(tmp_path)
    reader.read(np.arange(15))
    change(tmp_path / shard_key(1), 3)
    with pytest.raises(Damaged, match=shard_key(1)):
        reader.read(np.arange(15))
    os.truncate(tmp_path / shard_key(2), 100)
    with pytest.raises(Damaged, match=shard_key(2)):
        reader.read(np.array([14]))
    assert [bool(store.unit_problems(unit)) for unit in range(2)] == [True, True]


def flip_bit(rng, objects, key, _):
    data = bytearray(objects[key])
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    objects[key] = bytes(data)


def truncate(rng, objects, key, _):
    objects[key] = objects[key][: rng.integers(len(objects[key]))]


def zero(rng, objects, key, _):
    start, length = rng.integers(len(objects[key])), int(rng.integers(1, 200))
    part = objects[key][start : start + length]
    objects[key] = objects[key][:start] + bytes(len(part)) + objects[key][start + length :]


def delete(_, objects, key, __):
    del objects[key]


def append(rng, objects, key, _):
    objects[key] += rng.bytes(int(rng.integers(1, 50)))


def swap_files(rng, objects, key, _):
    alike = sorted(name for name in objects if name.split("/")[0] == key.split("/")[0])
    other = alike[rng.integers(len(alike))]
    objects[key], objects[other] = objects[other], objects[key]


def copy_over(rng, objects, key, _):
    objects[key] = objects[sorted(objects)[rng.integers(len(objects))]]


def foreign(_, objects, key, others):
    objects[key] = others[key]


CORRUPTIONS = [flip_bit, truncate, zero, delete, append, swap_files, copy_over, foreign]


def corrupted(rng, whole, others):
    """A store's files with one random corruption that changes some byte, and what was done."""
    while True:
        objects, kind, key = dict(whole), CORRUPTIONS[rng.integers(len(CORRUPTIONS))], weighted_key(rng, whole)
        kind(rng, objects, key, others)
        if objects != whole:
            return objects, f"{kind.__name__} {key}"


def weighted_key(rng, whole):
    """Any file: half of the time one of the shards and markers, of which there are fewer."""
    keys = sorted(key for key in whole if key.startswith(("latents/c", "index/")) or rng.random() < 0.5)
    return keys[rng.integers(len(keys))]


def in_memory(files):
    objects = MemoryObjects()
    objects.objects = dict(files)
    return objects


def assert_reads_nothing_wrong(objects, latents):
    """Pair by pair: an error or exactly the right bits; returns how many were read."""
    try:
        reader = ZarrTrajectoryStore.open(objects)
    except (Damaged, FileNotFoundError):
        return 0
    right = 0
    for pair in range(len(latents)):
        try:
            read = reader.read(np.array([pair])).latents
        except Damaged:
            continue
        assert_same_bits(read, latents[pair : pair + 1])
        right += 1
    return right
