"""Sealed files, markers and shards that are crafted commit nothing and unpack to nothing large."""

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest

from storage.errors import Damaged
from storage.objects import LocalObjects
from storage.sealed_parquet import seal, unseal
from storage.trajectories.markers import marker_key
from storage.trajectories.verification import repair_store, store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import shard_key
from tests.storage.crafting import reseal, with_column

pytestmark = pytest.mark.usefixtures("little_memory")


def bomb(rows):
    """A sealed file of a few kilobytes that unpacks to as many rows as you like."""
    return seal(pa.table({"a": pa.array(np.zeros(rows, np.int64))}), {})


def test_a_small_file_with_many_rows_is_not_unpacked():
    data = bomb(30_000_000)
    assert len(data) < 1_000_000
    with pytest.raises(Damaged, match="more than a file of its size"):
        unseal(data)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"agd-crc32c:", b"PAR1agd-crc32c:00000000PAR1" * 5])
def test_what_only_carries_a_checksum_is_no_sealed_file(data):
    blank = data.replace(b"agd-crc32c:", b"agd-crc32c:00000000")
    for candidate in (data, blank.replace(b"00000000", f"{google_crc32c.value(blank):08x}".encode())):
        with pytest.raises(Damaged):
            unseal(candidate)


def marker_table(store):
    return unseal(store.objects.read(marker_key(0)))[0]


def changed_marker(name, values):
    return lambda store: reseal(store.objects, marker_key(0), with_column(marker_table(store), name, values))


MARKERS = {
    "a key outside": changed_marker("key", ["../../thesis.txt"] * 4),
    "an absolute key": changed_marker("key", ["/etc/passwd"] * 4),
    "the key of another shard": changed_marker("key", [shard_key(1)] * 2 + [shard_key(0)] * 2),
    "a negative size": changed_marker("size", [-1] * 4),
    "a huge size": changed_marker("size", [2**62] * 4),
    "a missing value": changed_marker("content", [None] * 4),
    "too few rows": lambda store: reseal(store.objects, marker_key(0), marker_table(store).slice(0, 1)),
    "no rows": lambda store: reseal(store.objects, marker_key(0), marker_table(store).slice(0, 0)),
    "too many rows": lambda store: reseal(store.objects, marker_key(0), pa.concat_tables([marker_table(store)] * 3)),
    "other columns": lambda store: reseal(store.objects, marker_key(0), marker_table(store).drop_columns(["size"])),
}


@pytest.mark.parametrize("what", MARKERS)
def test_a_crafted_marker_does_not_commit_its_unit(store, what):
    outside = store.objects.root.parent / "thesis.txt"
    outside.write_text("ten years of work")
    MARKERS[what](store)
    again = ZarrTrajectoryStore.open(LocalObjects(store.objects.root))
    assert again.unit_problems(0)
    assert again.missing_units() == [0]
    with pytest.raises(Damaged):
        again.read(np.array([0]))
    repair_store(LocalObjects(store.objects.root))
    assert outside.read_text() == "ten years of work"


def test_an_index_that_names_chunks_outside_of_its_shard_is_torn(store):
    path = store.objects.root / shard_key(0)
    data = bytearray(path.read_bytes())
    body = slice(len(data) - store.layout.index_bytes, len(data) - 4)
    index = np.frombuffer(bytes(data[body]), "<u8").copy()
    index[::2] = len(data)
    data[body] = index.tobytes()
    data[-4:] = int(google_crc32c.value(bytes(data[body]))).to_bytes(4, "little")
    path.write_bytes(data)
    assert "outside of it" in store_problems(LocalObjects(store.objects.root), deep=False)[0]
