"""WebDataset tars: the same samples as the store's, the same bytes every time, and every accident that can be told."""

import json
import pickle
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st

from agd_core.basics.errors import InputError
from agd_core.data.order import StreamOrder
from agd_core.data.records import CARRIERS, TrajectoryReader
from storage.errors import Damaged, OtherContent
from storage.exports.base import INDEX, read_index
from storage.exports.tar_records import TarRecords
from storage.exports.webdataset import FORMAT, WebDatasetReader, export_webdataset, import_webdataset
from storage.names import NOTE, PLAN
from storage.objects import LocalObjects, MemoryObjects
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import BITS, assert_same_bits, latents_of, make_plan, write, write_missing
from tests.storage.exports.killed_export import Killed, killed_at

SIZES = {"trajectories": 7, "steps": 4, "shard": 2, "unit": 4}
TAR_SAMPLES = 10


def source(seed=None, **sizes):
    """A finished store of 28 pairs in four shards and two units, unless a test says otherwise."""
    store = ZarrTrajectoryStore.prepare(MemoryObjects(), make_plan(**SIZES | sizes))
    for unit in store.missing_units():
        write(store, unit, seed=seed or 0)
    return store


def tar_bytes(store, samples=TAR_SAMPLES):
    return samples * TarRecords(store.plan).size + 1024


def export(store, objects=None, seed=0, **options):
    objects = MemoryObjects() if objects is None else objects
    export_webdataset(store, objects, tar_bytes(store), seed, **options)
    return objects


def tars(objects):
    return {key: data for key, data in objects.objects.items() if key.endswith(".tar")}


@pytest.fixture(scope="module")
def store():
    return source()


@pytest.mark.parametrize("dtype", sorted(BITS))
@pytest.mark.parametrize(("latent_shape", "slots"), [((2, 3, 3), 1), ((4, 16, 16), 1), ((2, 3, 3), 2)])
def test_there_and_back_every_bit_is_the_same(dtype, latent_shape, slots):
    store = source(dtype=dtype, latent_shape=latent_shape, prediction_slots=slots)
    rebuilt = import_webdataset(export(store), MemoryObjects())
    everything = np.arange(store.plan.pairs)
    assert rebuilt.content_digest() == store.content_digest()
    assert rebuilt.plan.dataset_id == store.plan.dataset_id
    assert rebuilt.plan.prediction_slots == slots
    assert_same_bits(rebuilt.read(everything).latents, latents_of(store.plan))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    sizes=st.fixed_dictionaries(
        {"trajectories": st.integers(1, 9), "steps": st.integers(1, 5), "dtype": st.sampled_from(sorted(BITS))}
    ),
    samples=st.integers(1, 30),
    seed=st.integers(0, 2**64 - 1),
    pairs=st.lists(st.integers(0, 2**31), min_size=1, max_size=40),
)
def test_the_reader_gives_the_batches_of_the_store(sizes, samples, seed, pairs):
    store, objects = source(**sizes), MemoryObjects()
    export_webdataset(store, objects, tar_bytes(store, samples), seed)
    reader, pairs = WebDatasetReader(objects), np.array(pairs) % store.plan.pairs
    assert isinstance(reader, TrajectoryReader)
    ours, theirs = reader.read(pairs), store.read(pairs)
    assert ours.rows.keys() == theirs.rows.keys()
    assert all(np.array_equal(ours.rows[name], theirs.rows[name]) for name in ours.rows)
    for a, b in [(ours.latents, theirs.latents), (ours.timesteps, theirs.timesteps)]:
        assert_same_bits(a, b)
    assert_same_bits(ours.scalars["guidance_scale"], theirs.scalars["guidance_scale"])
    for name, table in store.plan.conditions.items():
        assert_same_bits(reader.plan.conditions[name], table)


def test_a_pair_that_the_plan_does_not_have_is_refused(store):
    with pytest.raises(IndexError, match="0 to 27"):
        WebDatasetReader(export(store)).read(np.array([28]))


def test_the_reader_travels_to_other_processes(store, tmp_path):
    reader = WebDatasetReader(export(store, LocalObjects(tmp_path)))
    assert_same_bits(pickle.loads(pickle.dumps(reader)).read(np.arange(5)).latents, store.read(np.arange(5)).latents)


def test_equal_content_gives_equal_bytes_wherever_it_is(store, tmp_path):
    first, second = export(store), export(source())
    assert first.objects == second.objects
    export(store, LocalObjects(tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.tar")} == tars(first)
    assert tars(export(source(seed=1))) != tars(first)
    assert tars(export(store, seed=1)) != tars(first)


def test_the_layout_is_what_webdataset_expects(store):
    objects = export(store)
    names = [f"train-{tar:06d}.tar" for tar in range(3)]
    assert sorted(tars(objects)) == names
    index = read_index(objects, FORMAT)
    assert [(entry.name, entry.samples) for entry in index.objects] == list(zip(names, [10, 10, 8], strict=True))
    assert all(len(objects.objects[entry.name]) == entry.size for entry in index.objects)
    assert objects.objects[f"store/{PLAN}"] == store.objects.objects[PLAN]


def test_plain_webdataset_reads_the_tars_with_no_code_of_ours(store, tmp_path):
    export(store, LocalObjects(tmp_path))
    urls = sorted(str(path) for path in tmp_path.glob("*.tar"))
    samples = list(wds.WebDataset(urls, shardshuffle=False).decode())
    expected, plan = store.read(np.arange(28)), store.plan
    assert len({sample["__key__"] for sample in samples}) == len(samples) == 28
    for sample in samples:
        told = sample["json"]
        pair = told["trajectory"] * 4 + told["slot"]
        latents = np.frombuffer(sample["lat.bin"], CARRIERS[plan.dtype]).reshape(plan.pair_shape)
        assert_same_bits(latents, expected.latents[pair])
        assert told["t"] == expected.timesteps[pair]
        assert told["guidance_scale"] == expected.scalars["guidance_scale"][pair]
        assert {name: told[name] for name in ("condition", "null")} == plan.trajectories[told["trajectory"]].rows
        assert told["class_label"] == plan.trajectories[told["trajectory"]].class_label
        assert sample["__key__"] == f"{told['trajectory']:06d}_{told['step']:04d}"


def test_members_tell_nothing_of_when_and_by_whom(store, tmp_path):
    export(store, LocalObjects(tmp_path))
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(315532800, 0, 0, "", "", 0o644)}
    assert [m.name.split(".", 1)[1] for m in members] == ["lat.bin", "json"] * TAR_SAMPLES
    assert len({second.offset - first.offset for first, second in zip(members[::2], members[2::2], strict=False)}) == 1


def test_neighbours_are_of_different_trajectories():
    store = source(trajectories=40, steps=8)
    reader = WebDatasetReader(export(store))
    trajectories = reader.stored.forward(np.arange(store.plan.pairs)) // 8
    assert np.count_nonzero(np.diff(trajectories)) > 0.9 * store.plan.pairs
    assert len(set(trajectories[:64].tolist())) > 25


class Counting(MemoryObjects):
    """Notes every range that is read."""

    def __init__(self, objects):
        super().__init__()
        self.objects, self.ranges = objects, []

    def gather(self, ranges, rows):
        self.ranges += ranges
        return super().gather(ranges, rows)


def test_a_stream_reads_every_tar_once_front_to_back(store):
    objects = Counting(export(store).objects)
    reader = WebDatasetReader(objects)
    order = StreamOrder(reader.stored, reader.tar_samples, batch_size=4, seed=3)
    batches = [reader.read(order.pairs(step)).latents for step in range(7)]
    assert_same_bits(np.concatenate(batches), store.read(np.concatenate([order.pairs(s) for s in range(7)])).latents)
    assert len(objects.ranges) == 7 + 1  # visited: the tar of 8 samples, then those of 10; one batch crosses over
    ends = {}
    for part in objects.ranges:
        assert part.start == ends.get(part.key, 0)
        ends[part.key] = part.start + part.length
    assert ends == {entry.name: entry.size - 1024 for entry in reader.index.objects}


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGE = {
    "missing": lambda data, record: None,
    "cut inside a sample": lambda data, record: data[: 2 * record + 700],
    "cut between samples": lambda data, record: data[: 2 * record],
    "latents flipped": lambda data, record: flipped(data, 3 * record + 512),
    "description flipped": lambda data, record: flipped(data, 4 * record - 400),
    "two samples swapped": lambda data, record: data[record : 2 * record] + data[:record] + data[2 * record :],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_with_the_tar_s_name_and_repaired_by_exporting_again(store, damage):
    objects = export(store)
    whole, name = dict(objects.objects), "train-000001.tar"
    torn = DAMAGE[damage](whole[name], TarRecords(store.plan).size)
    del objects.objects[name]
    objects.objects |= {} if torn is None else {name: torn}
    reader = WebDatasetReader(objects)
    with pytest.raises(Damaged, match=name):
        reader.read(np.arange(28))
    others = reader.stored.forward(np.arange(10))
    assert_same_bits(reader.read(others).latents, store.read(others).latents)
    assert [name in problem for problem in reader.problems()] == [True]
    with pytest.raises(Damaged, match=name):
        import_webdataset(objects, MemoryObjects())
    export(store, objects)
    assert objects.objects == whole


@pytest.mark.parametrize("key", [INDEX, f"store/{PLAN}", "store/cond/pooled/c/0/0"])
def test_a_torn_index_or_plan_is_told_and_repaired(store, key):
    objects = export(store)
    whole = dict(objects.objects)
    objects.objects[key] = flipped(whole[key], len(whole[key]) // 2)
    with pytest.raises(Damaged):
        WebDatasetReader(objects)
    export(store, objects)
    assert objects.objects == whole


@pytest.mark.parametrize("samples", [0, 3, 10, 17, 28])
def test_a_killed_export_leaves_whole_tars_only_and_continues(store, tmp_path, samples):
    objects = LocalObjects(tmp_path)
    with pytest.raises(Killed):
        export(store, objects, on_progress=killed_at(samples))
    with pytest.raises(InputError, match="no finished export"):
        WebDatasetReader(objects)
    complete = tars(export(store))
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file() and path.name != NOTE}
    assert left.items() <= complete.items()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.tar")}
    export(store, objects)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.tar")} == complete
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_wrong_tar_that_a_killed_export_left_is_replaced(store):
    whole = export(store).objects
    for wrong in (DAMAGE["two samples swapped"], DAMAGE["latents flipped"], lambda data, record: flipped(data, 5)):
        objects = MemoryObjects()
        objects.objects = {key: data for key, data in whole.items() if key != INDEX}
        objects.objects["train-000000.tar"] = wrong(whole["train-000000.tar"], TarRecords(store.plan).size)
        export(store, objects)
        assert objects.objects == whole


def test_a_second_export_writes_nothing(store, tmp_path):
    objects = LocalObjects(tmp_path)
    times = []
    for _ in range(2):
        export(store, objects)
        times.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")})
    assert times[0] == times[1]


def test_another_export_at_the_place_is_refused(store):
    objects = export(store)
    with pytest.raises(OtherContent, match="seed 0 there, 1 asked for"):
        export(store, objects, seed=1)
    with pytest.raises(OtherContent, match="content_digest"):
        export(source(seed=1), objects)


def test_an_unfinished_store_is_refused():
    store = ZarrTrajectoryStore.prepare(MemoryObjects(), make_plan(**SIZES))
    write(store, 0)
    objects = MemoryObjects()
    with pytest.raises(Damaged, match="unit 1 is not committed"):
        export(store, objects)
    assert objects.objects == {}


def test_an_interrupted_import_continues_and_another_store_is_refused(store):
    objects, target = export(store), MemoryObjects()
    with pytest.raises(Killed):
        import_webdataset(objects, target, killed_at(16))
    assert ZarrTrajectoryStore.open(target).missing_units() == [1]
    first = dict(target.objects)
    assert import_webdataset(objects, target).content_digest() == store.content_digest()
    assert first.items() <= target.objects.items()
    other = write_missing(ZarrTrajectoryStore.prepare(MemoryObjects(), make_plan(3)))
    with pytest.raises(OtherContent):
        import_webdataset(objects, other.objects)


def test_trajectories_of_several_splits_are_refused():
    plan = make_plan(**SIZES)
    rows = (replace(plan.trajectories[0], split="test"), *plan.trajectories[1:])
    store = write_missing(ZarrTrajectoryStore.prepare(MemoryObjects(), replace(plan, trajectories=rows)))
    with pytest.raises(ValueError, match="one split; these trajectories are of test, train"):
        export(store)


def test_the_note_is_for_people(store):
    note = json.loads(export(store).objects[NOTE])
    assert note == {
        "format": FORMAT,
        "format_version": 1,
        "dataset_id": store.plan.dataset_id,
        "content_digest": store.content_digest(),
        "seed": 0,
        "tar_samples": TAR_SAMPLES,
    }
