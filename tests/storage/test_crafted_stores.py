"""Stores and exports whose checksums are right and whose content is crafted: one line each, nothing large, no hang."""

import json
import os
import resource
from pathlib import Path

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest

from agd_core.errors import InputError
from storage.archive import export_archive, import_archive
from storage.errors import Damaged
from storage.exports import INDEX, export_problems, read_index
from storage.layout import shard_key
from storage.markers import marker_key, read_marker
from storage.names import NOTE, PLAN
from storage.objects import LocalObjects
from storage.plan_file import ListedFile, listed_files, read_plan
from storage.sealed_parquet import seal, unseal
from storage.verification import repair_store, store_problems
from storage.webdataset_store import WebDatasetReader, export_webdataset, import_webdataset
from storage.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import make_plan, write_missing

HUGE = 2**60


@pytest.fixture(autouse=True)
def little_memory():
    """So little beyond what is used already that a bomb fails at once."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def store(tmp_path):
    return write_missing(ZarrTrajectoryStore.prepare(LocalObjects(tmp_path / "store"), make_plan()))


def reseal(objects, key, table=None, **footer):
    """A sealed file again, with another table or other words in its footer; the checksum is right."""
    found, known = unseal(objects.read(key))
    changed = known | footer
    table = (found if table is None else table).replace_schema_metadata(None)
    objects.put(key, seal(table, {k: v for k, v in changed.items() if v is not None}))


def plan_table(store):
    return unseal(store.objects.read(PLAN))[0]


def with_column(table, name, values):
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def changed_layout(**changes):
    def craft(store):
        layout = json.loads(unseal(store.objects.read(PLAN))[1]["layout"])
        reseal(store.objects, PLAN, layout=json.dumps(layout | changes))

    return craft


def changed_column(name, values):
    return lambda store: reseal(store.objects, PLAN, with_column(plan_table(store), name, values))


def changed_file(key, change):
    """Another prepared file, for which the plan vouches."""

    def craft(store):
        data = change(store.objects.read(key))
        listed = json.loads(unseal(store.objects.read(PLAN))[1]["files"]) | {key: vars(ListedFile.of(data))}
        store.objects.put(key, data)
        reseal(store.objects, PLAN, files=json.dumps(listed))

    return craft


def metadata(**changes):
    return lambda data: json.dumps(json.loads(data) | changes).encode()


def listing(key, **entry):
    def craft(store):
        listed = json.loads(unseal(store.objects.read(PLAN))[1]["files"])
        reseal(store.objects, PLAN, files=json.dumps(listed | {key: {"size": 1, "crc32c": 1} | entry}))

    return craft


ARRAY = "cond/pooled/zarr.json"
GZIP = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "gzip", "configuration": {"level": 5}}]
PICKLE = [{"name": "numcodecs.pickle", "configuration": {}}]
GRID = {"name": "regular", "configuration": {"chunk_shape": [HUGE, 5]}}
PLANS = {
    "a negative shard": changed_layout(shard_trajectories=-2),
    "no shard": changed_layout(shard_trajectories=0),
    "a shard of half a trajectory": changed_layout(shard_trajectories=0.5),
    "a shard of very many": changed_layout(shard_trajectories=HUGE, unit_trajectories=HUGE),
    "a unit that is no multiple": changed_layout(unit_trajectories=5),
    "latents of any size": changed_layout(latent_shape=[HUGE, HUGE, HUGE]),
    "latents of two sides": changed_layout(latent_shape=[2, 3]),
    "latents that are text": changed_layout(latent_shape="abc"),
    "another type": changed_layout(dtype="object"),
    "a type that is a list": changed_layout(dtype=["float16"]),
    "three slots": changed_layout(prediction_slots=3),
    "a true slot": changed_layout(prediction_slots=True),
    "no layout": lambda store: reseal(store.objects, PLAN, layout=None),
    "no dataset": lambda store: reseal(store.objects, PLAN, dataset_id=None),
    "no version": lambda store: reseal(store.objects, PLAN, format_version=None),
    "an identity that is deep": lambda store: reseal(store.objects, PLAN, identity="[" * 100_000),
    "an identity that is a number": lambda store: reseal(store.objects, PLAN, identity="7"),
    "an identity that is no number": lambda store: reseal(store.objects, PLAN, identity='{"a": NaN}'),
    "an identity that says it twice": lambda store: reseal(store.objects, PLAN, identity='{"a": 1, "a": 2}'),
    "files that are a list": lambda store: reseal(store.objects, PLAN, files="[]"),
    "a file outside": listing("../../thesis.txt"),
    "an absolute file": listing("/etc/passwd"),
    "a file outside of its folder": listing("cond/../../thesis.txt/zarr.json"),
    "a shard among the files": listing("latents/c.0.0.0.0.0.0"),
    "a negative size": listing("zarr.json", size=-1),
    "a size that is text": listing("zarr.json", size="1"),
    "a size too many": listing("zarr.json", more=1),
    "no rows": lambda store: reseal(store.objects, PLAN, plan_table(store).slice(0, 0)),
    "other columns": lambda store: reseal(store.objects, PLAN, plan_table(store).drop_columns(["seed"])),
    "a column of another type": lambda store: reseal(
        store.objects, PLAN, plan_table(store).set_column(3, "seed", pa.array(["x"] * 5))
    ),
    "a column twice": lambda store: reseal(
        store.objects, PLAN, plan_table(store).append_column("seed", pa.array([1] * 5))
    ),
    "missing values": changed_column("seed", [None, 1, 2, 3, 4]),
    "other numbers": changed_column("trajectory", [0, 1, 2, 3, 2**62]),
    "conditions that are not there": changed_column("cond_id", [0, 1, 2, 3, 0]),
    "negative conditions": changed_column("cond_id", [0, 1, 2, -1, 0]),
    "steps that are not there": changed_column("steps", [[0, 1, 8]] * 5),
    "negative steps": changed_column("steps", [[-1, 1, 2]] * 5),
    "no steps": changed_column("steps", [[]] * 5),
    "uneven steps": changed_column("steps", [[0]] + [[0, 1, 2]] * 4),
    "a step without a value": changed_column("steps", [[0, None, 2]] * 5),
    "a scale that is no number": changed_column("guidance_scale", [float("nan")] * 5),
    "conditions without shape": changed_file(ARRAY, metadata(shape=[])),
    "conditions of any shape": changed_file(ARRAY, metadata(shape=[HUGE, 5])),
    "conditions in huge chunks": changed_file(ARRAY, metadata(chunk_grid=GRID)),
    "conditions of negative shape": changed_file(ARRAY, metadata(shape=[-3, 5])),
    "conditions of objects": changed_file(ARRAY, metadata(data_type="object")),
    "conditions of a type that is a list": changed_file(ARRAY, metadata(data_type=[1])),
    "conditions in gzip": changed_file(ARRAY, metadata(codecs=GZIP)),
    "conditions in pickles": changed_file(ARRAY, metadata(codecs=PICKLE)),
    "conditions that are no JSON": changed_file(ARRAY, lambda data: b"{"),
    "conditions that are deep": changed_file(ARRAY, lambda data: b"[" * 100_000),
    "conditions with a short chunk": changed_file("cond/pooled/c/0/0", lambda data: data[:-8]),
    "conditions with a torn chunk": changed_file("cond/pooled/c/0/0", lambda data: data[:-1] + b"\0"),
    "a schedule that is a table": changed_file("schedule/timestep/zarr.json", metadata(shape=[4, 2])),
}


@pytest.mark.parametrize("what", PLANS)
def test_a_crafted_plan_is_one_line_for_every_reader(store, what):
    outside = store.objects.root.parent / "thesis.txt"
    outside.write_text("ten years of work")
    PLANS[what](store)
    problems = store_problems(LocalObjects(store.objects.root))
    assert len(problems) == 1, problems
    assert "\n" not in problems[0]
    assert len(problems[0]) < 1000
    with pytest.raises(ValueError, match=r"."):
        ZarrTrajectoryStore.open(LocalObjects(store.objects.root))
    repair_store(LocalObjects(store.objects.root))
    assert outside.read_text() == "ten years of work"


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


@pytest.fixture
def exported(store, tmp_path):
    objects = LocalObjects(tmp_path / "tars")
    export_webdataset(store, objects, tar_bytes=30_000)
    return objects


def index_table(objects):
    return unseal(objects.read(INDEX))[0]


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

    from storage.archive import _lzma_filters
    from storage.shards import crc_bytes

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
