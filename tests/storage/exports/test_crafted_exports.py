"""Exports whose checksums are right and whose content is crafted are refused, and nothing is written."""

import json

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest

from storage.errors import Damaged
from storage.exports.archive import export_archive, import_archive
from storage.exports.base import INDEX, export_problems, read_index
from storage.exports.webdataset import WebDatasetReader, export_webdataset, import_webdataset
from storage.names import NOTE, PLAN
from storage.objects import LocalObjects
from storage.sealed_parquet import unseal
from storage.trajectories.markers import marker_key, read_marker
from storage.trajectories.plan_file import listed_files, read_plan
from tests.storage.contract import shard_key
from tests.storage.crafting import HUGE, PICKLE, index_table, metadata, reseal, with_column

pytestmark = pytest.mark.usefixtures("little_memory")


@pytest.fixture
def exported(store, tmp_path):
    objects = LocalObjects(tmp_path / "tars")
    export_webdataset(store, objects, tar_bytes=30_000)
    return objects


def changed_note(**changes):
    def craft(objects):
        note = json.loads(unseal(objects.read(INDEX))[1]["note"]) | changes
        reseal(objects, INDEX, note=json.dumps({k: v for k, v in note.items() if v is not None}))

    return craft


def changed_index(name, value):
    return lambda objects: reseal(
        objects, INDEX, with_column(index_table(objects), name, [value] * len(index_table(objects)))
    )


EXPORTS = {
    "a note that is a list": lambda objects: reseal(objects, INDEX, note="[1]"),
    "a note that is deep": lambda objects: reseal(objects, INDEX, note="[" * 100_000),
    "no note": lambda objects: reseal(objects, INDEX, note=None),
    "a note without a digest": changed_note(content_digest=None),
    "a digest that is a list": changed_note(dataset_id=[1]),
    "tars of no samples": changed_note(tar_samples=0),
    "tars of negative samples": changed_note(tar_samples=-3),
    "tars of some text": changed_note(tar_samples="9"),
    "a negative seed": changed_note(seed=-1),
    "a huge seed": changed_note(seed=2**80),
    "another dataset": changed_note(dataset_id="0" * 64),
    "another kind": changed_note(format="agd-archive"),
    "a name outside": changed_index("name", "../outside"),
    "an absolute name": changed_index("name", "/etc/passwd"),
    "a missing name": changed_index("name", None),
    "a huge size": changed_index("size", HUGE),
    "a negative size": changed_index("size", -1),
    "other columns": lambda objects: reseal(objects, INDEX, index_table(objects).drop_columns(["crc32c"])),
    "a plan that is a link": lambda objects: (
        (objects.root / "store" / PLAN).unlink(),
        (objects.root / "store" / PLAN).symlink_to("/etc/passwd"),
    ),
}


@pytest.mark.parametrize("what", EXPORTS)
def test_a_crafted_export_is_refused_and_nothing_is_written(exported, tmp_path, what):
    (tmp_path / "outside").write_text("x")
    EXPORTS[what](exported)
    with pytest.raises(ValueError, match=r".") as raised:
        import_webdataset(LocalObjects(exported.root), LocalObjects(tmp_path / "target"))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "target").exists()
    export_problems(LocalObjects(exported.root))
    assert (tmp_path / "outside").read_text() == "x"


def test_tar_headers_lead_nowhere(exported, tmp_path):
    """Members are read by their place; what a header says of names and links is compared, never followed."""
    path = next(exported.root.glob("*.tar"))
    data = bytearray(path.read_bytes())
    data[:100] = b"../../outside".ljust(100, b"\0")
    data[156:157] = b"2"
    path.write_bytes(data)
    assert export_problems(LocalObjects(exported.root))
    store = import_webdataset(LocalObjects(exported.root), LocalObjects(tmp_path / "target"))
    assert store.content_digest() == WebDatasetReader(exported).content_digest
    assert not (tmp_path / "outside").exists()


def test_an_archive_that_unpacks_to_more_than_its_plan_says_is_refused(store, tmp_path):
    import lzma

    from storage.exports.archive import _lzma_filters
    from storage.trajectories.shards import crc_bytes

    objects = LocalObjects(tmp_path / "archive")
    export_archive(store, objects)
    filters = _lzma_filters(np.dtype("uint16"))
    compressor = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=filters)
    packed = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush()
    packed += crc_bytes(packed)
    objects.put(shard_key(0), packed)
    rows = [
        entry | {"size": len(packed), "crc32c": google_crc32c.value(packed)} if entry["name"] == shard_key(0) else entry
        for entry in index_table(objects).to_pylist()
    ]
    reseal(objects, INDEX, pa.Table.from_pylist(rows, index_table(objects).schema))
    with pytest.raises(Damaged, match="unpacks to other than"):
        import_archive(LocalObjects(objects.root), LocalObjects(tmp_path / "target"))


def test_the_codecs_that_an_archive_names_are_not_asked(store, tmp_path):
    objects = LocalObjects(tmp_path / "archive")
    export_archive(store, objects)
    data = metadata(codecs=PICKLE)(objects.read("latents/zarr.json"))
    objects.put("latents/zarr.json", data)
    rows = [
        entry | {"size": len(data), "crc32c": google_crc32c.value(data)}
        if entry["name"] == "latents/zarr.json"
        else entry
        for entry in index_table(objects).to_pylist()
    ]
    reseal(objects, INDEX, pa.Table.from_pylist(rows, index_table(objects).schema))
    imported = import_archive(LocalObjects(objects.root), LocalObjects(tmp_path / "target"))
    assert imported.content_digest() == store.content_digest()


@pytest.mark.parametrize("note", ["[" * 100_000, "null", "[]", "", "x" * 100])
def test_a_target_with_a_crafted_note_is_refused(store, tmp_path, note):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / NOTE).write_text(note)
    with pytest.raises(ValueError, match="holds another export"):
        export_webdataset(store, LocalObjects(tmp_path / "target"))


def test_what_is_whole_is_read_as_before(store, exported):
    data = store.objects.read(PLAN)
    files = {key: store.objects.read(key) for key in listed_files(data)}
    plan = read_plan(data, files)
    assert plan.dataset_id == store.plan.dataset_id
    assert plan.conditions.keys() == store.plan.conditions.keys()
    assert [shard.key for shard in read_marker(store.objects.read(marker_key(0)), plan, 0)] == [
        shard_key(0),
        shard_key(1),
    ]
    assert read_index(exported).samples == plan.pairs
