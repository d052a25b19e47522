import hashlib
import json

import pytest
import torch

from storage.artefacts import ARTEFACTS, MANIFEST, Artefact, ArtefactStore, find_artefacts

IDENTITY = {"version": 1, "config": {"steps": 20, "scales": [1.0, 3.0]}, "upstream": "ab" * 32}
FILES = {"weights.bin": b"\x00weights" * 40, "nested/info.json": b"{}", "times.json": b'{"seconds": 1.5}'}


def fill(artefact, files=FILES):
    for name, data in files.items():
        path = artefact.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def store(tmp_path):
    return ArtefactStore(tmp_path / "output" / ARTEFACTS)


@pytest.fixture
def started(store):
    artefact = store.artefact("adapter", IDENTITY)
    fill(artefact)
    return artefact


@pytest.fixture
def finished(started):
    started.finish(IDENTITY, measured=["times.json"])
    return started


def test_without_a_manifest_it_is_not_finished(started):
    assert not started.finished
    assert started.problems() == [f"{started.path}: not finished (no intact {MANIFEST})"]
    for read in (started.manifest, lambda: started.digest):
        with pytest.raises(FileNotFoundError, match="not finished"):
            read()


def test_finished_it_has_no_problems_and_says_what_it_is(finished):
    assert finished.finished
    assert finished.problems() == []
    manifest = finished.manifest()
    assert manifest["identity"] == IDENTITY
    assert manifest["stage"] == "adapter"
    assert finished.path.name == f"adapter-{finished.key[:16]}"


def test_the_manifest_sums_every_file(finished):
    sums = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in FILES.items()}
    assert finished.manifest()["files"] == sums


def test_partial_files_of_a_killed_run_are_not_content(started):
    (started.path / "weights.bin.4194304.partial").write_bytes(b"torn")
    started.finish(IDENTITY)
    assert set(started.manifest()["files"]) == set(FILES)


def alter(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "altered": (alter, "checksum differs"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes instead of"),
    "grown": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes instead of"),
    "missing": (lambda path: path.unlink(), "missing"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damaged_file_is_named_and_no_other(finished, name, damage):
    spoil, words = DAMAGE[damage]
    spoil(finished.path / name)
    (problem,) = finished.problems()
    assert problem.startswith(f"{finished.path / name}: ")
    assert words in problem
    assert finished.finished == (damage == "altered")


def test_every_damaged_file_has_its_line(finished):
    for name in FILES:
        (finished.path / name).unlink()
    assert len(finished.problems()) == len(FILES)


def test_checksums_of_large_files_can_be_left_out(finished):
    for name in ("weights.bin", "nested/info.json"):
        alter(finished.path / name)
    assert finished.problems(checksum_bytes=len(FILES["nested/info.json"])) == [
        f"{finished.path / 'nested/info.json'}: checksum differs"
    ]
    assert len(finished.problems(checksum_bytes=len(FILES["weights.bin"]))) == 2


def test_the_size_of_large_files_is_checked_all_the_same(finished):
    (finished.path / "weights.bin").write_bytes(b"short but still too large to sum")
    (problem,) = finished.problems(checksum_bytes=1)
    assert "bytes instead of" in problem


@pytest.mark.parametrize("torn", [b"", b'{"key": "', b"\xff\xfe", b"\x00" * 50])
def test_a_torn_manifest_means_not_finished(finished, torn):
    (finished.path / MANIFEST).write_bytes(torn)
    assert not finished.finished
    assert len(finished.problems()) == 1


def test_an_altered_digest_in_the_manifest_is_a_problem(finished):
    manifest = finished.manifest() | {"digest": "0" * 64}
    (finished.path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    assert finished.problems()


def test_a_manifest_of_another_key_does_not_finish_this_one(finished):
    assert not Artefact(finished.path, finished.stage, "0" * 64).finished


def digest_of(store, run, files, measured=()):
    artefact = ArtefactStore(store.root / run).artefact("adapter", IDENTITY)
    fill(artefact, files)
    artefact.finish(IDENTITY, measured)
    return artefact.digest


def test_measured_files_do_not_change_the_digest(store):
    slower = FILES | {"times.json": b'{"seconds": 99}'}
    assert digest_of(store, "a", FILES, ["times.json"]) == digest_of(store, "b", slower, ["times.json"])
    assert digest_of(store, "c", FILES) != digest_of(store, "d", slower)


@pytest.mark.parametrize("change", [{"weights.bin": b"other"}, {"one more": b""}])
def test_content_and_names_change_the_digest(store, change):
    assert digest_of(store, "a", FILES) != digest_of(store, "b", FILES | change)


def test_equal_content_gives_an_equal_manifest_wherever_it_lies(store):
    digest_of(store, "a", FILES)
    digest_of(store, "b", dict(reversed(FILES.items())))
    first, second = (path.read_bytes() for path in store.root.rglob(MANIFEST))
    assert first == second


def test_reopened_it_is_unfinished_and_keeps_its_files(finished):
    finished.reopen()
    finished.reopen()
    assert not finished.finished
    assert all((finished.path / name).read_bytes() == data for name, data in FILES.items())
    finished.finish(IDENTITY, measured=["times.json"])
    assert finished.finished


def test_the_key_is_stage_and_identity_whatever_the_key_order(store):
    key = store.artefact("adapter", IDENTITY).key
    assert store.artefact("adapter", dict(reversed(IDENTITY.items()))).key == key
    assert store.artefact("adapter", json.loads(json.dumps(IDENTITY))).key == key
    assert store.artefact("samples", IDENTITY).key != key
    assert store.artefact("adapter", IDENTITY | {"version": 2}).key != key


@pytest.mark.parametrize("value", [{1, 2}, torch.zeros(2), b"bytes"], ids=["set", "tensor", "bytes"])
def test_an_identity_that_is_not_plain_data_is_refused(store, value):
    with pytest.raises(TypeError):
        store.artefact("adapter", {"config": value})


@pytest.fixture
def three(store):
    artefacts = [store.artefact(stage, IDENTITY) for stage in ("adapter", "samples", "trajectories")]
    for artefact in artefacts:
        fill(artefact)
    artefacts[0].finish(IDENTITY)
    artefacts[2].finish(IDENTITY)
    return artefacts


def listed(folder):
    return [(artefact.stage, artefact.finished) for artefact in find_artefacts(folder)]


def test_all_artefacts_are_found_finished_or_not(store, three):
    everything = [("adapter", True), ("samples", False), ("trajectories", True)]
    assert listed(store.root.parent.parent) == everything
    assert listed(store.root.parent) == everything
    assert find_artefacts(store.root.parent)[0] == three[0]


def test_unfinished_artefacts_are_found_from_inside_the_artefacts_folder(store, three):
    assert listed(store.root) == [("adapter", True), ("samples", False), ("trajectories", True)]


@pytest.mark.parametrize(("which", "expected"), [(0, ("adapter", True)), (1, ("samples", False))])
def test_an_artefact_is_found_at_its_own_folder(three, which, expected):
    assert listed(three[which].path) == [expected]


def test_an_artefact_with_a_torn_manifest_is_listed_as_unfinished(store, three):
    (three[0].path / MANIFEST).write_bytes(b"{")
    assert ("adapter", False) in listed(store.root.parent)


def test_a_folder_with_nothing_of_ours_has_no_artefacts(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"")
    assert find_artefacts(tmp_path) == []


def test_a_flipped_bit_anywhere_in_a_manifest_is_named(tmp_path):
    artefact = ArtefactStore(tmp_path).artefact("stage", {"a": 1})
    artefact.path.mkdir(parents=True)
    (artefact.path / "data").write_bytes(b"content")
    artefact.finish({"a": 1})
    path = artefact.path / MANIFEST
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert artefact.problems() or json.loads(path.read_bytes()) == json.loads(whole), place
    path.write_bytes(whole)
    assert artefact.problems() == []
