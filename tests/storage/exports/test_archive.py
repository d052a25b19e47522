"""The archive: every bit comes back, plain zarr reads it, damage is told."""

import json

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from agd_core.basics.errors import InputError
from storage.errors import Damaged, OtherContent
from storage.exports.archive import FORMAT, export_archive, import_archive
from storage.exports.base import INDEX, read_index
from storage.exports.webdataset import WebDatasetReader
from storage.names import PLAN
from storage.objects import LocalObjects, MemoryObjects
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import (
    BITS,
    CARRIERS,
    assert_same_bits,
    latents_of,
    make_plan,
    shard_key,
    write,
    write_missing,
)
from tests.storage.exports.killed_export import Killed, killed_at

SIZES = {"trajectories": 7, "steps": 4, "shard": 2, "unit": 4}


def source(seed=0, **sizes):
    """A finished store of four shards in two units, unless a test says otherwise."""
    store = ZarrTrajectoryStore.prepare(MemoryObjects(), make_plan(**SIZES | sizes))
    for unit in store.missing_units():
        write(store, unit, seed=seed)
    return store


def archived(store, objects=None, **options):
    objects = MemoryObjects() if objects is None else objects
    export_archive(store, objects, **options)
    return objects


@pytest.fixture(scope="module")
def store():
    return source()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    trajectories=st.integers(1, 9),
    steps=st.integers(1, 6),
    shard=st.integers(1, 4),
    dtype=st.sampled_from(sorted(BITS)),
    latent_shape=st.sampled_from([(1, 1, 1), (3, 5, 2), (4, 8, 8)]),
    slots=st.sampled_from([1, 2]),
)
def test_there_and_back_every_bit_is_the_same(trajectories, steps, shard, dtype, latent_shape, slots):
    sizes = {"trajectories": trajectories, "steps": steps, "shard": shard, "unit": 2 * shard, "prediction_slots": slots}
    store = source(dtype=dtype, latent_shape=latent_shape, **sizes)
    rebuilt = import_archive(archived(store), MemoryObjects())
    assert rebuilt.content_digest() == store.content_digest()
    assert rebuilt.plan.dataset_id == store.plan.dataset_id
    assert_same_bits(rebuilt.read(np.arange(store.plan.pairs)).latents, latents_of(store.plan))


@pytest.mark.parametrize("dtype", sorted(BITS))
@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
def test_plain_zarr_reads_it_with_no_code_of_ours(dtype, tmp_path):
    store = source(dtype=dtype)
    archived(store, LocalObjects(tmp_path))
    group = zarr.open_group(tmp_path, mode="r")
    array = group["latents"]
    assert group.attrs["content_digest"] == store.content_digest()
    assert (array.attrs["logical_dtype"], array.attrs["carrier"]) == (dtype, CARRIERS[dtype])
    expected = latents_of(store.plan).reshape(7, 4, *store.plan.pair_shape)
    assert_same_bits(array[...].view(array.attrs["carrier"]), expected)
    conditions = zarr.open_group(tmp_path / "store" / "cond", mode="r")
    assert_same_bits(conditions["pooled"][...], store.plan.conditions["pooled"])


def test_only_registered_codecs_are_used(store):
    metadata = json.loads(archived(store).objects["latents/zarr.json"])
    names = [codec["name"] for codec in metadata["codecs"]]
    delta = ["numcodecs.delta"] * 2
    assert names == ["transpose", *delta, "transpose", "bytes", "numcodecs.lzma", "crc32c"]


def smooth(dtype="float32"):
    """Trajectories that change slowly, as real ones do."""
    plan = make_plan(**SIZES | {"steps": 8, "latent_shape": (4, 16, 16), "dtype": dtype})
    store = ZarrTrajectoryStore.prepare(MemoryObjects(), plan)
    ends = np.random.default_rng(0).standard_normal((2, 7, *plan.pair_shape))
    for unit in store.missing_units():
        with store.write_unit(unit) as writer:
            for row in writer.wanted:
                for slot in range(8):
                    pair = ends[0, row.index] + slot / 8 * ends[1, row.index]
                    writer.put(row.index, slot, pair.astype(dtype))
    return store


@pytest.mark.parametrize(("dtype", "bar"), [("float16", 0.75), ("float32", 0.75)])
def test_what_changes_slowly_becomes_small(dtype, bar):
    store = smooth(dtype)
    assert read_index(archived(store), FORMAT).size < bar * store.plan.pairs * store.plan.pair_bytes


def test_equal_content_gives_equal_bytes(store, tmp_path):
    assert archived(store).objects == archived(source()).objects
    archived(store, LocalObjects(tmp_path))
    assert (tmp_path / shard_key(3)).read_bytes() == archived(store).objects[shard_key(3)]


def flipped(data):
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGE = {"missing": None, "cut": lambda data: data[:-9], "flipped": flipped, "empty": lambda data: b""}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("key", [shard_key(1), "latents/zarr.json"])
def test_damage_is_told_with_its_name_and_repaired_by_archiving_again(store, damage, key):
    objects = archived(store)
    whole = dict(objects.objects)
    del objects.objects[key]
    objects.objects |= {key: DAMAGE[damage](whole[key])} if DAMAGE[damage] else {}
    with pytest.raises(Damaged, match=key):
        import_archive(objects, MemoryObjects())
    archived(store, objects)
    assert objects.objects == whole


@pytest.mark.parametrize("key", [INDEX, f"store/{PLAN}"])
def test_a_torn_index_or_plan_is_told(store, key):
    objects = archived(store)
    objects.objects[key] = flipped(objects.objects[key])
    with pytest.raises(Damaged):
        import_archive(objects, MemoryObjects())


@pytest.mark.parametrize("samples", [0, 8, 24, 28])
def test_a_killed_archive_is_none_and_continues(store, samples):
    objects = MemoryObjects()
    with pytest.raises(Killed):
        archived(store, objects, on_progress=killed_at(samples))
    with pytest.raises(InputError, match="no finished export"):
        import_archive(objects, MemoryObjects())
    left = dict(objects.objects)
    archived(store, objects)
    assert objects.objects == archived(store).objects
    assert left.items() <= objects.objects.items()


def test_a_wrong_chunk_that_a_killed_archive_left_is_replaced(store):
    whole = archived(store).objects
    for wrong in (b"", flipped(whole[shard_key(0)]), whole[shard_key(1)]):
        objects = MemoryObjects()
        objects.objects = {key: data for key, data in whole.items() if key != INDEX} | {shard_key(0): wrong}
        archived(store, objects)
        assert objects.objects == whole


def test_a_second_archive_writes_nothing(store, tmp_path):
    times = []
    for _ in range(2):
        archived(store, LocalObjects(tmp_path))
        times.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")})
    assert times[0] == times[1]


def test_another_kind_or_content_is_refused(store):
    objects = archived(store)
    with pytest.raises(OtherContent, match="content_digest"):
        archived(source(seed=1), objects)
    with pytest.raises(InputError, match="holds agd-archive version 1, not agd-webdataset"):
        WebDatasetReader(objects)


def test_an_interrupted_import_continues_and_another_store_is_refused(store):
    objects, target = archived(store), MemoryObjects()
    with pytest.raises(Killed):
        import_archive(objects, target, killed_at(16))
    assert ZarrTrajectoryStore.open(target).missing_units() == [1]
    assert import_archive(objects, target).content_digest() == store.content_digest()
    other = write_missing(ZarrTrajectoryStore.prepare(MemoryObjects(), make_plan(3)))
    with pytest.raises(OtherContent):
        import_archive(objects, other.objects)


def test_videos_are_archived_too(tmp_path):
    store = write_missing(ZarrTrajectoryStore.prepare(MemoryObjects(), make_plan(latent_shape=(2, 3, 4, 5))))
    objects = MemoryObjects()
    export_archive(store, objects)
    assert import_archive(objects, MemoryObjects()).content_digest() == store.content_digest()
