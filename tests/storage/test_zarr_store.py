import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import killed_writer
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from agd_core.records import PlannedTrajectory
from storage import zarr_store
from storage.zarr_store import StoreSpec, ZarrTrajectoryReader, ZarrTrajectoryWriter

SCHEDULE = (999.0, 800.5, 600.0, 400.0, 200.0, 1.0)
BITS = {"float16": np.uint16, "float32": np.uint32}


def make_plan(trajectories, kept_steps=3):
    kept = [tuple(sorted((i + 2 * k) % len(SCHEDULE) for k in range(kept_steps))) for i in range(trajectories)]
    return [PlannedTrajectory(i, 2**62 + i, 7 * i % 10, 1.1 + 0.3 * i, kept[i]) for i in range(trajectories)]


def make_spec(shard=2, dtype="float32", latent_shape=(2, 3, 3)):
    return StoreSpec(latent_shape, dtype, shard, SCHEDULE, {"key": "abc"})


def open_writer(root, trajectories=5, kept_steps=3, **spec):
    return ZarrTrajectoryWriter(root, make_plan(trajectories, kept_steps), make_spec(**spec))


def block(writer, unit):
    """Random bits: every kind of number the type has, NaN and infinities too."""
    shape = (len(writer.planned(unit)), len(writer.plan[0].steps), 2, *writer.spec.latent_shape)
    bits = BITS[writer.spec.dtype]
    random = np.random.default_rng(unit).integers(0, np.iinfo(bits).max, shape, bits, endpoint=True)
    return random.view(writer.spec.dtype)


def commit(writer, units):
    for unit in units:
        writer.commit(unit, block(writer, unit))
    return writer


def whole(writer):
    return np.concatenate([block(writer, unit) for unit in range(writer.units)])


def assert_same_bits(a, b):
    assert a.dtype == b.dtype
    assert a.shape == b.shape
    assert a.tobytes() == b.tobytes()


def files(root):
    paths = [path for path in root.rglob("*") if path.is_file() and not path.name.endswith(".partial")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def shard_of(root, unit):
    return root / "latents" / "c" / f"{unit}/0/0/0/0/0"


def marker_of(root, unit):
    return root / "units" / f"u-{unit:06d}.json"


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    trajectories=st.integers(1, 7),
    shard=st.integers(1, 8),
    kept_steps=st.integers(1, 3),
    latent_shape=st.tuples(*[st.integers(1, 5)] * 3),
    dtype=st.sampled_from(sorted(BITS)),
)
def test_what_is_read_is_what_was_written_bit_for_bit(trajectories, shard, kept_steps, latent_shape, dtype):
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"kept_steps": kept_steps, "shard": shard, "latent_shape": latent_shape, "dtype": dtype}
        writer = open_writer(Path(folder), trajectories, **sizes)
        commit(writer, reversed(writer.missing_units()))
        assert writer.missing_units() == []
        reader = ZarrTrajectoryReader(Path(folder))
        batch = reader.read(np.arange(reader.pairs))
        assert_same_bits(batch.latents, whole(writer).reshape(-1, 2, *latent_shape))


@pytest.mark.parametrize("in_memory_bytes", [0, 1 << 20])
@pytest.mark.parametrize("dtype", BITS)
def test_rows_of_a_batch_line_up_with_the_plan(tmp_path, monkeypatch, dtype, in_memory_bytes):
    monkeypatch.setattr(zarr_store, "_IN_MEMORY_BYTES", in_memory_bytes)
    writer = commit(open_writer(tmp_path, dtype=dtype), range(3))
    reader, pairs = ZarrTrajectoryReader(tmp_path), np.array([14, 0, 7, 7, 3, 10])
    batch, latents = reader.read(pairs), whole(writer)
    assert reader.pairs == 15
    rows = [(writer.plan[pair // 3], pair % 3) for pair in pairs]
    assert_same_bits(batch.latents, np.stack([latents[row.index, slot] for row, slot in rows]))
    assert_same_bits(batch.timesteps, np.array([SCHEDULE[row.steps[slot]] for row, slot in rows], np.float32))
    assert_same_bits(batch.class_labels, np.array([row.class_label for row, _ in rows], np.int64))
    assert_same_bits(batch.guidance_scales, np.array([row.guidance_scale for row, _ in rows], np.float32))


def test_plain_zarr_reads_the_array(tmp_path):
    writer = commit(open_writer(tmp_path, dtype="float16"), range(3))
    array = zarr.open_array(tmp_path / "latents", mode="r")
    assert_same_bits(array[:], whole(writer))
    assert array.attrs["schedule"] == list(SCHEDULE)
    assert array.attrs["key"] == "abc"
    assert array.attrs["format_version"] == 1


def test_the_layout_is_one_step_per_chunk_and_whole_trajectories_per_shard(tmp_path):
    array = zarr.open_array(commit(open_writer(tmp_path), range(3)).root / "latents", mode="r")
    assert array.chunks == (1, 1, 2, 2, 3, 3)
    assert array.shards == (2, 3, 2, 2, 3, 3)
    shards = {path for path in (tmp_path / "latents" / "c").rglob("*") if path.is_file()}
    assert shards == {shard_of(tmp_path, unit) for unit in range(3)}


def test_plain_parquet_reads_the_plan(tmp_path):
    open_writer(tmp_path)
    rows = pq.read_table(tmp_path / "plan.parquet").to_pylist()
    assert [row["seed"] for row in rows] == [2**62 + i for i in range(5)]
    assert [tuple(row["steps"]) for row in rows] == [row.steps for row in make_plan(5)]


@pytest.mark.parametrize("in_memory_bytes", [0, 1 << 20])
def test_a_shard_that_was_never_written_reads_as_nan(tmp_path, monkeypatch, in_memory_bytes):
    monkeypatch.setattr(zarr_store, "_IN_MEMORY_BYTES", in_memory_bytes)
    writer = commit(open_writer(tmp_path), [0, 2])
    batch = ZarrTrajectoryReader(tmp_path).read(np.arange(15))
    assert np.isnan(batch.latents[6:12]).all()
    assert_same_bits(batch.latents[:6], block(writer, 0).reshape(6, 2, 2, 3, 3))
    assert_same_bits(batch.latents[12:], block(writer, 2).reshape(3, 2, 2, 3, 3))


def test_latents_that_equal_the_fill_value_are_stored_like_any_other(tmp_path):
    writer = open_writer(tmp_path)
    writer.commit(1, np.full((2, 3, 2, 2, 3, 3), np.nan, np.float32))
    assert writer.missing_units() == [0, 2]
    assert shard_of(tmp_path, 1).stat().st_size > 2 * 3 * 2 * 18 * 4


def test_units_share_out_the_plan(tmp_path):
    writer = open_writer(tmp_path)
    assert writer.units == 3
    assert [row.index for unit in range(3) for row in writer.planned(unit)] == [0, 1, 2, 3, 4]
    assert [len(writer.planned(unit)) for unit in range(3)] == [2, 2, 1]


def test_units_are_missing_until_they_are_committed(tmp_path):
    writer = open_writer(tmp_path)
    assert writer.missing_units() == [0, 1, 2]
    commit(writer, [1])
    assert writer.missing_units() == [0, 2]
    assert open_writer(tmp_path).missing_units() == [0, 2]
    commit(open_writer(tmp_path), [2, 0])
    assert writer.missing_units() == []


def test_the_order_of_commits_and_reopening_do_not_change_a_byte(tmp_path):
    commit(open_writer(tmp_path / "a"), range(3))
    for unit in (2, 0, 1):
        commit(open_writer(tmp_path / "b"), [unit])
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("unit", [0, 2])
def test_committing_again_gives_the_same_bytes_and_new_content_replaces_the_old(tmp_path, unit):
    writer = commit(open_writer(tmp_path), range(3))
    before = files(tmp_path)
    writer.commit(unit, np.zeros_like(block(writer, unit)))
    assert files(tmp_path) != before
    commit(writer, [unit])
    assert files(tmp_path) == before


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(data)


def cut(path, length):
    os.truncate(path, length(path.stat().st_size))


def change_marker(root, unit, data):
    marker_of(root, unit).write_bytes(data)


DAMAGE = {
    "shard truncated": lambda root, unit: cut(shard_of(root, unit), lambda size: size // 2),
    "shard one byte short": lambda root, unit: cut(shard_of(root, unit), lambda size: size - 1),
    "shard empty": lambda root, unit: cut(shard_of(root, unit), lambda size: 0),
    "shard all zeros": lambda root, unit: shard_of(root, unit).write_bytes(bytes(shard_of(root, unit).stat().st_size)),
    "shard bit flipped": lambda root, unit: flip(shard_of(root, unit)),
    "shard of another unit": lambda root, unit: shutil.copy(shard_of(root, 1), shard_of(root, unit)),
    "shard deleted": lambda root, unit: shard_of(root, unit).unlink(),
    "marker deleted": lambda root, unit: marker_of(root, unit).unlink(),
    "marker empty": lambda root, unit: change_marker(root, unit, b""),
    "marker truncated": lambda root, unit: cut(marker_of(root, unit), lambda size: size // 2),
    "marker zeros": lambda root, unit: change_marker(root, unit, bytes(80)),
    "marker not text": lambda root, unit: change_marker(root, unit, b"\xff\xfe\x00"),
    "marker without fields": lambda root, unit: change_marker(root, unit, b"{}"),
    "marker a list": lambda root, unit: change_marker(root, unit, b"[]"),
    "marker a number": lambda root, unit: change_marker(root, unit, b"1"),
    "marker with wrong types": lambda root, unit: change_marker(root, unit, b'{"file": 1, "bytes": 2, "sha256": 3}'),
    "marker of another unit": lambda root, unit: shutil.copy(marker_of(root, 1), marker_of(root, unit)),
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    return commit(open_writer(tmp_path_factory.mktemp("intact")), range(3)).root


@pytest.mark.parametrize("unit", [0, 2])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_unit_and_only_that_unit_is_missing_and_can_be_committed_again(intact, tmp_path, damage, unit):
    root = shutil.copytree(intact, tmp_path / "store")
    DAMAGE[damage](root, unit)
    writer = open_writer(root)
    assert writer.missing_units() == [unit]
    commit(writer, [unit])
    assert writer.missing_units() == []
    assert files(root) == files(intact)


@pytest.mark.parametrize("in_memory_bytes", [0, 1 << 20])
@pytest.mark.parametrize("damage", ["shard truncated", "shard bit flipped"])
def test_a_damaged_shard_is_not_read_as_if_it_were_data(intact, tmp_path, monkeypatch, damage, in_memory_bytes):
    monkeypatch.setattr(zarr_store, "_IN_MEMORY_BYTES", in_memory_bytes)
    root = shutil.copytree(intact, tmp_path / "store")
    DAMAGE[damage](root, 0)
    with pytest.raises(ValueError, match="checksum"):
        ZarrTrajectoryReader(root).read(np.arange(6))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_block_of_the_wrong_size_is_never_committed(tmp_path, rows):
    writer = open_writer(tmp_path)
    with pytest.raises((ValueError, AssertionError)):
        writer.commit(0, np.zeros((rows, 3, 2, 2, 3, 3), np.float32))
    assert writer.missing_units() == [0, 1, 2]


def test_the_marker_is_gone_until_its_shard_is_on_disk(tmp_path, monkeypatch):
    writer, marker, seen, real = commit(open_writer(tmp_path), range(3)), marker_of(tmp_path, 0), [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(marker.exists()) or real(descriptor))
    commit(writer, [0])
    assert len(seen) >= 4
    assert seen == [False] * (len(seen) - 1) + [True]


def killed_stores(root, mode, *delays):
    """Run the writers that get killed; give every store one of them left behind."""
    command = [sys.executable, killed_writer.__file__, mode, str(root), *map(str, delays)]
    environment = os.environ | {"PYTHONPATH": str(Path(zarr_store.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    statuses = [line.rsplit(" ", 1) for line in done.stdout.splitlines()]
    return [(Path(store), int(status)) for store, status in statuses]


def torn_markers(root):
    markers = [json.loads(path.read_text(encoding="utf-8")) for path in root.glob("units/*.json")]
    return [m for m in markers if hashlib.sha256((root / m["file"]).read_bytes()).hexdigest() != m["sha256"]]


def assert_survived(store, mode, uninterrupted):
    assert torn_markers(store) == []
    marked = sorted(int(path.stem.removeprefix("u-")) for path in store.glob("units/*.json"))
    writer = killed_writer.open_writer(store, mode)
    assert writer.missing_units() == [unit for unit in range(writer.units) if unit not in marked]
    killed_writer.commit_missing(writer)
    assert files(store) == uninterrupted


def uninterrupted_files(root, mode):
    killed_writer.commit_missing(killed_writer.open_writer(root, mode))
    return files(root)


def test_a_writer_killed_before_any_file_operation_is_continued_to_the_same_bytes(tmp_path):
    uninterrupted = uninterrupted_files(tmp_path / "whole", "operations")
    *killed, last = killed_stores(tmp_path / "killed", "operations")
    assert len(killed) > 10
    assert {status for _, status in killed} == {-9}
    assert last[1] == 0
    for store, _ in [*killed, last]:
        assert_survived(store, "operations", uninterrupted)


def test_a_writer_killed_in_the_middle_of_a_commit_leaves_no_torn_unit(tmp_path):
    uninterrupted = uninterrupted_files(tmp_path / "whole", "delays")
    killed = killed_stores(tmp_path / "killed", "delays", 0, 0.5, 1, 2, 4, 8, 12, 20)
    assert [status for _, status in killed] == [-9] * 8
    for store, _ in killed:
        assert_survived(store, "delays", uninterrupted)
