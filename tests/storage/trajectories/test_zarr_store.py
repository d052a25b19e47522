"""The Zarr store: the contract in memory and in a folder, and its bytes."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from storage.errors import Damaged
from storage.names import PLAN
from storage.objects import LocalObjects, MemoryObjects
from storage.trajectories.layout import StoreLayout
from storage.trajectories.markers import marker_key
from storage.trajectories.shards import crc_bytes
from storage.trajectories.verification import store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import (
    BITS,
    TrajectoryStoreContract,
    assert_same_bits,
    latents_of,
    make_plan,
    pair_of,
    shard_key,
    write,
    write_missing,
)
from tests.storage.zarr_tools import ONE_STEP, SEVERAL_STEPS, content, in_folder, provenance


class ZarrContract(TrajectoryStoreContract):
    def reopened(self, store):
        return ZarrTrajectoryStore.open(store.objects)


class TestInMemory(ZarrContract):
    @pytest.fixture
    def new_store(self):
        return lambda plan: ZarrTrajectoryStore.prepare(MemoryObjects(), plan)


class TestInFolder(ZarrContract):
    @pytest.fixture
    def new_store(self, tmp_path):
        folders = (tmp_path / str(number) for number in range(10**6))
        return lambda plan: ZarrTrajectoryStore.prepare(LocalObjects(next(folders)), plan)

    def reopened(self, store):
        return ZarrTrajectoryStore.open(LocalObjects(store.objects.root))


@pytest.mark.parametrize(("sizes", "expected"), [(ONE_STEP, 1), (SEVERAL_STEPS, 4), ({}, 3)])
def test_tiny_steps_share_a_chunk(sizes, expected):
    assert StoreLayout(make_plan(**sizes)).steps_per_chunk == expected


@pytest.mark.parametrize(
    ("steps", "latent_shape", "expected"),
    [(50, (4, 8, 8), 5), (25, (4, 8, 8), 5), (7, (4, 8, 8), 7), (17, (4, 8, 8), 1), (50, (4, 32, 32), 1)],
)
def test_a_chunk_is_a_whole_part_of_the_stored_steps(steps, latent_shape, expected):
    plan = make_plan(1)
    longer = replace(plan.trajectories[0], steps=tuple(range(steps)))
    assert StoreLayout(replace(plan, trajectories=(longer,), latent_shape=latent_shape)).steps_per_chunk == expected


@pytest.mark.parametrize("dtype", sorted(BITS))
@pytest.mark.parametrize("sizes", [ONE_STEP, SEVERAL_STEPS])
def test_plain_zarr_reads_what_we_wrote(tmp_path, sizes, dtype):
    plan = make_plan(dtype=dtype, **sizes)
    write_missing(in_folder(tmp_path, plan))
    group = zarr.open_group(tmp_path, mode="r")
    assert_same_bits(group["latents"][:].reshape(-1, *plan.pair_shape), latents_of(plan))
    assert_same_bits(group["latents"][4, plan.stored_steps - 1, 1], pair_of(plan, 4, plan.stored_steps - 1)[1])
    assert_same_bits(group["schedule/timestep"][:], np.array(plan.timesteps, np.float32))
    for name, table in plan.conditions.items():
        assert_same_bits(group[f"cond/{name}"][:], table)
    assert group.attrs["dataset_id"] == plan.dataset_id
    assert group.attrs["logical_dtype"] == dtype
    assert group.attrs["k_names"] == ["input", "guided_prediction"]
    assert "prediction_slots" not in group.attrs


@pytest.mark.parametrize("sizes", [ONE_STEP, SEVERAL_STEPS])
def test_plain_zarr_reads_a_learned_variance_behind_the_prediction(tmp_path, sizes):
    plan = make_plan(prediction_slots=2, **sizes)
    write_missing(in_folder(tmp_path, plan))
    group = zarr.open_group(tmp_path, mode="r")
    assert_same_bits(group["latents"][:].reshape(-1, *plan.pair_shape), latents_of(plan))
    assert (group.attrs["k_names"], group.attrs["prediction_slots"]) == (
        ["input", "guided_prediction", "learned_variance"],
        2,
    )
    assert store_problems(LocalObjects(tmp_path)) == []


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_plain_zarr_reads_a_missing_unit_as_nan(tmp_path, dtype):
    plan = make_plan(dtype=dtype, **ONE_STEP)
    write(in_folder(tmp_path, plan), 1)
    missing = zarr.open_array(tmp_path / "latents", mode="r")[:4]
    if dtype == "bfloat16":
        assert (missing == 0x7FC0).all()
    else:
        assert np.isnan(missing).all()


@pytest.mark.parametrize("dtype", sorted(BITS))
@pytest.mark.parametrize("sizes", [ONE_STEP, SEVERAL_STEPS])
def test_our_index_reader_reads_what_plain_zarr_wrote(tmp_path, sizes, dtype):
    plan = make_plan(dtype=dtype, **sizes)
    layout, chunks = in_folder(tmp_path, plan).layout, StoreLayout(plan).chunks_per_trajectory
    array = zarr.open_array(tmp_path / "latents", mode="r+")
    array[:3] = latents_of(plan).reshape(array.shape)[:3]
    found = [chunks_of(tmp_path / shard_key(shard), layout) for shard in range(2)]
    expected = latents_of(plan).reshape(5, chunks, -1).view(np.uint8)
    assert [sorted(chunk) for chunk in found] == [list(range(2 * chunks)), list(range(chunks))]
    for shard, read in enumerate(found):
        for chunk, data in read.items():
            assert data == expected[2 * shard + chunk // chunks, chunk % chunks].tobytes()


def chunks_of(path, layout):
    data = path.read_bytes()
    offsets = layout.chunk_offsets(data[-layout.index_bytes :]).tolist()
    found = {number: data[start : start + layout.stride] for number, start in enumerate(offsets) if start >= 0}
    assert all(crc_bytes(chunk[:-4]) == chunk[-4:] for chunk in found.values())
    return {number: chunk[:-4] for number, chunk in found.items()}


def test_plain_zarr_places_chunks_in_another_order_than_ours(tmp_path):
    """So the test above proves that the index is used."""
    plan = make_plan(8, shard=4, unit=4, **ONE_STEP)
    layout = in_folder(tmp_path, plan).layout
    array = zarr.open_array(tmp_path / "latents", mode="r+")
    array[:] = latents_of(plan).reshape(array.shape)
    data = (tmp_path / shard_key(0)).read_bytes()
    assert (np.diff(layout.chunk_offsets(data[-layout.index_bytes :])) < 0).any()


def test_a_shard_that_we_did_not_write_is_not_adopted(tmp_path):
    plan = make_plan(**ONE_STEP)
    store = in_folder(tmp_path, plan)
    array = zarr.open_array(tmp_path / "latents", mode="r+")
    array[:] = latents_of(plan).reshape(array.shape)
    write_missing(store)
    assert provenance(store) == [["new", "new"], ["new"]]
    assert store_problems(store.objects) == []


def test_chunks_of_another_size_are_refused():
    layout, other = (StoreLayout(make_plan(steps=3, latent_shape=(4, 16, width))) for width in (16, 32))
    with pytest.raises(Damaged, match="another size"):
        layout.chunk_offsets(other.tail(0))


def test_every_byte_of_the_store_is_accounted_for(tmp_path):
    """The built-in teacher's shape, 64 trajectories of 50 steps: conditions, plan and markers included."""
    plan = make_plan(64, 1, shard=32, unit=32, latent_shape=(4, 8, 8))
    kept = [replace(row, steps=tuple(range(50))) for row in plan.trajectories]
    plan = replace(plan, trajectories=tuple(kept), timesteps=tuple(map(float, range(50))))
    plan = replace(plan, conditions={"class_labels": np.arange(10)})
    store = write_missing(in_folder(tmp_path, plan))
    raw = 64 * 50 * 1024
    assert plan.pair_bytes == 1024
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 1.02 * raw
    assert {(tmp_path / shard_key(shard)).stat().st_size for shard in range(2)} == {store.layout.size(0)}
    assert store.layout.size(0) == 32 * 10 * (5 * 1024 + 4 + 16) + 4 + 48


def test_conditions_are_stored_once_however_many_trajectories_use_them(tmp_path):
    sizes = []
    for count in (6, 60):
        in_folder(tmp_path / str(count), make_plan(count))
        folder = tmp_path / str(count) / "cond"
        sizes.append(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("sizes", [ONE_STEP, SEVERAL_STEPS])
def test_equal_content_gives_equal_bytes_whatever_the_order(tmp_path, sizes):
    plan = make_plan(9, **sizes)
    write_missing(in_folder(tmp_path / "straight", plan))
    for seed in range(3):
        order = np.random.default_rng(seed)
        for unit in order.permutation(plan.units).tolist():
            write(in_folder(tmp_path / str(seed), plan), unit, order)
        assert content(tmp_path / str(seed)) == content(tmp_path / "straight")


@pytest.mark.parametrize("slots", [1, 2])
def test_the_marker_says_what_is_stored(tmp_path, slots):
    plan = make_plan(prediction_slots=slots, **ONE_STEP)
    store = write_missing(ZarrTrajectoryStore.prepare(LocalObjects(tmp_path), plan, "a device"))
    rows = pq.read_table(tmp_path / marker_key(0)).to_pylist()
    by_slot = np.abs(latents_of(plan).reshape(5, 3, 1 + slots, -1)).max(axis=(1, 3)).astype(np.float32)
    latents = np.stack([by_slot[:, 0], by_slot[:, 1:].max(axis=1)], axis=1)
    assert [row["trajectory"] for row in rows] == [0, 1, 2, 3]
    assert [tuple(row["steps"]) for row in rows] == [row.steps for row in plan.unit(0)]
    assert [[row["x_absmax"], row["eps_absmax"]] for row in rows] == latents[:4].tolist()
    assert {(row["provenance"], row["device"], row["nonfinite"]) for row in rows} == {("new", "a device", 0)}
    assert [shard.size for shard in store.committed_shards()] == [
        (tmp_path / shard_key(shard)).stat().st_size for shard in range(3)
    ]


def test_the_plan_is_plain_parquet(tmp_path):
    plan = make_plan()
    in_folder(tmp_path, plan)
    rows = pq.read_table(tmp_path / PLAN).to_pylist()
    assert [row["seed"] for row in rows] == [2**62 + i for i in range(5)]
    assert [row["unit"] for row in rows] == [0, 0, 0, 0, 1]
    assert [row["shard"] for row in rows] == [0, 0, 1, 1, 2]
    assert [tuple(row["steps"]) for row in rows] == [row.steps for row in plan.trajectories]


@pytest.mark.parametrize(
    ("latent_shape", "sides"),
    [((4, 16, 16), ("channel", "height", "width")), ((4, 2, 8, 16), ("channel", "frame", "height", "width"))],
)
def test_plain_zarr_reads_images_and_videos_and_knows_their_sides(latent_shape, sides, tmp_path):
    store = write_missing(in_folder(tmp_path, make_plan(latent_shape=latent_shape)))
    array = zarr.open_array(tmp_path / "latents", mode="r")
    assert array.metadata.dimension_names == ("trajectory", "step", "k", *sides)
    assert_same_bits(array[:].reshape(-1, *store.plan.pair_shape), latents_of(store.plan))
    assert store_problems(store.objects) == []
