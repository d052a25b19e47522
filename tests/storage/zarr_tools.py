"""A small Zarr store in a folder, and what its tests look at."""

from dataclasses import replace

import numpy as np
import pytest

from storage.objects import LocalObjects
from storage.trajectories.markers import marker_key, read_marker
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import (
    assert_same_bits,
    latents_of,
    make_plan,
    pair_of,
    put_all,
    write,
    write_missing,
)

ONE_STEP = {"steps": 3, "latent_shape": (4, 16, 16)}
SEVERAL_STEPS = {"steps": 8, "latent_shape": (4, 8, 8)}


def in_folder(root, plan=None):
    return ZarrTrajectoryStore.prepare(LocalObjects(root), plan or make_plan())


def opened(root):
    return ZarrTrajectoryStore.open(LocalObjects(root))


def content(root):
    """Every file but the markers, which hold times."""
    paths = [path for path in root.rglob("*") if path.is_file() and path.parent.name != "index"]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def markers(store):
    units = range(store.plan.units)
    return [read_marker(store.objects.read(marker_key(unit)), store.plan, unit) for unit in units]


def provenance(store):
    return [[shard.provenance for shard in unit] for unit in markers(store)]


def leave_orphans(store, unit):
    with pytest.raises(KeyError), store.write_unit(unit) as writer:
        put_all(writer, store.plan)
        raise KeyError


@pytest.mark.parametrize("sizes", [ONE_STEP, SEVERAL_STEPS])
def test_finished_shards_without_a_marker_are_adopted(tmp_path, sizes):
    store = in_folder(tmp_path, make_plan(**sizes))
    leave_orphans(store, 0)
    before = content(tmp_path)
    assert store.missing_units() == [0, 1]
    with in_folder(tmp_path, store.plan).write_unit(0) as writer:
        assert list(writer.wanted) == []
        writer.put(0, 0, pair_of(store.plan, 0, 1))
    assert content(tmp_path) == before
    write(store, 1)
    assert provenance(store) == [["adopted", "adopted"], ["new"]]
    assert_same_bits(store.read(np.arange(store.plan.pairs)).latents, latents_of(store.plan))
    fresh = write_missing(in_folder(tmp_path / "fresh", store.plan))
    assert store.content_digest() == fresh.content_digest()
    assert [[replace(shard, provenance="new") for shard in unit] for unit in markers(store)] == markers(fresh)


def test_only_what_is_not_finished_is_wanted(tmp_path):
    store = in_folder(tmp_path)
    with pytest.raises(ValueError, match="not complete"), store.write_unit(0) as writer:
        for slot in range(3):
            for row in (2, 3):
                writer.put(row, slot, pair_of(store.plan, row, slot))
            writer.put(0, slot, pair_of(store.plan, 0, slot))
    with store.write_unit(0) as writer:
        assert [row.index for row in writer.wanted] == [0, 1]
        put_all(writer, store.plan)
    assert provenance(write_missing(store))[0] == ["new", "adopted"]
    assert_same_bits(store.read(np.arange(15)).latents, latents_of(store.plan))


def change(path, place, value=None):
    data = bytearray(path.read_bytes())
    data[place] = data[place] ^ 0x10 if value is None else value
    path.write_bytes(data)


def swap(path, other):
    ours, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(ours)


def swap_chunks(path):
    """Two chunks with their checksums change places: every checksum in the shard still holds."""
    data, stride = bytearray(path.read_bytes()), 3 * 2 * 18 * 2 + 4
    data[:stride], data[stride : 2 * stride] = data[stride : 2 * stride], data[:stride]
    path.write_bytes(data)


def unmarked(files):
    return {key: data for key, data in files.items() if not key.startswith("index/")}
