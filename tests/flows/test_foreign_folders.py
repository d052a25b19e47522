"""An output folder from somebody else is data: nothing outside of it is read, asked, written or deleted."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agd_core.basics.digest import digest
from agd_core.basics.errors import InputError
from flows.cli.app import app
from flows.stages.trajectories import NotNamed, open_trajectories, trajectory_problems
from flows.stages.verify import verify
from flows.workplace import Workplace
from storage.artefacts import ARTEFACTS, MANIFEST, Artefact
from storage.names import LOCATION, PLAN
from storage.objects import LocalObjects
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import make_plan, write_missing

ZEROS = "0" * 64


@pytest.fixture
def home(tmp_path):
    """What lies outside of the folder from somebody else."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("ten years of work")
    (home / "c.1.1-ab.partial").write_text("in progress")
    return home


@pytest.fixture
def gift(tmp_path):
    return tmp_path / "gift"


def everything(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def craft(gift, files, stage="samples", **changes):
    """An artefact whose manifest says this of its files, with a seal that is right."""
    folder = gift / ARTEFACTS / f"{stage}-{'0' * 16}"
    folder.mkdir(parents=True, exist_ok=True)
    note = {"format_version": 2, "stage": stage, "key": ZEROS, "identity": {}, "measured": [], "digest": ZEROS}
    note |= {"files": files} | changes
    (folder / MANIFEST).write_text(json.dumps(note | {"seal": digest(note)}))
    return folder


def entry(data=b"x", size=None):
    return {"bytes": len(data) if size is None else size, "sha256": ZEROS}


NAMES = ["../../../home/thesis.txt", "{home}/thesis.txt", "link/thesis.txt", "link.txt", "a\nb", "x" * 300, "", "."]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("repair", [False, True])
def test_a_name_in_a_manifest_means_nothing_outside_of_its_folder(gift, home, name, repair):
    folder = craft(gift, {name.format(home=home): entry()})
    (folder / "link").symlink_to(home)
    (folder / "link.txt").symlink_to(home / "thesis.txt")
    before = everything(home)
    found = verify(gift, repair)
    assert not found["ok"]
    assert len(found["problems"]) == 1
    assert "ten years" not in str(found)
    assert "17 bytes" not in str(found)  # its size was not looked at
    assert everything(home) == before
    assert (folder / "link.txt").is_symlink()


MANIFESTS = {
    "files are a list": {"files": ["a"]},
    "bytes are text": {"files": {"a": {"bytes": "1", "sha256": ZEROS}}},
    "bytes are true": {"files": {"a": {"bytes": True, "sha256": ZEROS}}},
    "bytes are negative": {"files": {"a": entry(size=-1)}},
    "a sum is no sum": {"files": {"a": {"bytes": 1, "sha256": "../x"}}},
    "a stage is a path": {"stage": "../../x"},
    "a key is no sum": {"key": "../../../home"},
    "a key is a number": {"key": 7},
    "measured is a number": {"measured": 3},
    "a digest is a list": {"digest": [1]},
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_manifest_with_other_fields_is_one_line(gift, what):
    folder = craft(gift, {}, **{"stage": "samples"})
    crafted = json.loads((folder / MANIFEST).read_text()) | MANIFESTS[what]
    del crafted["seal"]
    (folder / MANIFEST).write_text(json.dumps(crafted | {"seal": digest(crafted)}))
    (line,) = verify(gift, repair=True)["problems"]
    assert "not finished (no intact manifest.json" in line
    assert "\n" not in line


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a": NaN}', "null", '"\\ud800"', "{}", '{"files": {}, "files": {}}'])
def test_a_manifest_that_is_none_is_one_line(gift, text):
    folder = craft(gift, {})
    (folder / MANIFEST).write_text(text)
    (line,) = verify(gift)["problems"]
    assert "not finished" in line


def test_a_manifest_that_is_a_pipe_is_not_waited_for(gift):
    folder = craft(gift, {"pipe": entry()})
    os.mkfifo(folder / "pipe")
    assert "named pipe" in verify(gift)["problems"][0]
    (folder / MANIFEST).unlink()
    os.mkfifo(folder / MANIFEST)
    assert "named pipe" in verify(gift)["problems"][0]


@pytest.mark.parametrize("where", ["artefact", "artefacts", "manifest"])
def test_links_out_of_the_folder_are_named_and_not_followed(gift, home, where):
    outside = craft(home / "theirs", {"secret.txt": entry(size=3)})
    (outside / "secret.txt").write_text("abc")
    before = everything(home)
    (gift / ARTEFACTS).mkdir(parents=True)
    if where == "artefact":
        (gift / ARTEFACTS / "samples-1").symlink_to(outside)
    elif where == "artefacts":
        (gift / "more").mkdir()
        (gift / "more" / ARTEFACTS).symlink_to(outside.parent)
    else:
        (gift / ARTEFACTS / "samples-1").mkdir()
        (gift / ARTEFACTS / "samples-1" / MANIFEST).symlink_to(outside / MANIFEST)
    craft(gift, {}, stage="report")
    found = verify(gift, repair=True)
    assert any("is a link: what it leads to was not checked" in line for line in found["unchecked"])
    assert not any("secret" in line for line in found["problems"])
    assert everything(home) == before


def test_a_circle_of_links_and_a_deep_tree_end(gift):
    craft(gift, {})
    (gift / "loop").symlink_to(gift)
    assert verify(gift)["artefacts"] == 1
    deep = gift
    for _ in range(70):
        deep = deep / "d"
        deep.mkdir()
    with pytest.raises(InputError, match="nested deeper"):
        verify(gift)


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: None])
def test_what_is_no_folder_is_refused(tmp_path, make):
    make(tmp_path / "x")
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "x")])
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def located(gift, url):
    folder = craft(gift, {}, stage="trajectories")
    (folder / LOCATION).write_text(json.dumps({"url": url}))
    return Artefact(folder, "trajectories", ZEROS)


@pytest.mark.parametrize("url", ["{home}", "s3://bucket/x", "https://example.invalid/x", "file://{home}"])
@pytest.mark.parametrize("named", [None, "memory://mine"])
def test_a_note_of_a_place_that_nobody_named_is_not_followed(gift, home, url, named, monkeypatch):
    def ask(*_):
        raise AssertionError("asked")

    artefact, before = located(gift, url.format(home=home)), everything(home)
    monkeypatch.setattr("storage.objects.remote.RemoteObjects._ask", ask)
    found = verify(gift, repair=True, follow=named)
    assert [line for line in found["unchecked"] if url.format(home=home) in line and "--follow" in line]
    assert everything(home) == before
    for read in (trajectory_problems, open_trajectories):
        with pytest.raises(NotNamed, match=r"--set store\.url="):
            read(artefact, named)


@pytest.mark.parametrize("named", ["{kept}", "{kept}/", "{kept}/trajectories-0000000000000000"])
def test_a_place_that_the_user_names_is_followed(gift, tmp_path, named):
    kept = tmp_path / "kept"
    artefact = located(gift, f"{kept}/trajectories-{'0' * 16}")
    store = write_missing(ZarrTrajectoryStore.prepare(LocalObjects(kept / artefact.path.name), make_plan()))
    named = named.format(kept=kept)
    assert open_trajectories(artefact, named).content_digest() == store.content_digest()
    found = verify(gift, follow=named)
    assert found["unchecked"] == []
    (kept / artefact.path.name / PLAN).unlink()
    assert any(f"{PLAN}: missing" in line for line in verify(gift, follow=named)["problems"])


@pytest.mark.parametrize("note", ['{"url": 5}', "{}", "[]", '{"url": null, "url": "x"}', "[" * 100_000])
def test_a_crafted_note_of_a_place_is_one_line(gift, note):
    artefact = located(gift, None)
    (artefact.path / LOCATION).write_text(note)
    assert any("its store cannot be read" in line for line in verify(gift)["problems"])


def test_a_store_that_is_a_link_out_of_its_artefact_is_not_read(gift, home):
    write_missing(ZarrTrajectoryStore.prepare(LocalObjects(home / "store"), make_plan()))
    artefact = located(gift, None)
    (artefact.path / "store").symlink_to(home / "store")
    assert any("link that leads out" in line for line in verify(gift, repair=True)["problems"])
    assert (home / "store" / PLAN).exists()
    with pytest.raises(InputError, match="link that leads out"):
        open_trajectories(artefact)


def produce(output):
    def work(artefact):
        (artefact.path / "new.txt").write_text("new")

    return Workplace(output).produce("stage", {"a": 1}, work)


def prepared(gift):
    """The folder that the stage will work in, as a killed run of somebody else would leave it."""
    folder = produce(gift).path
    for path in (folder / MANIFEST, folder / "new.txt", folder.parent / f".{folder.name}.lock"):
        path.unlink()
    return folder


LINKS = {
    "a pipe in the artefact": lambda folder, home: os.mkfifo(folder / "checkpoint.safetensors"),
    "a file of the artefact": lambda folder, home: (folder / "new.txt").symlink_to(home / "thesis.txt"),
    "a folder of the artefact": lambda folder, home: (folder / "deeper").symlink_to(home),
    "the artefact": lambda folder, home: (folder.rmdir(), folder.symlink_to(home)),
    "all artefacts": lambda folder, home: (folder.rmdir(), folder.parent.rmdir(), folder.parent.symlink_to(home)),
    "the lock": lambda folder, home: (folder.parent / f".{folder.name}.lock").symlink_to(home / "thesis.txt"),
    "a pipe as the lock": lambda folder, home: os.mkfifo(folder.parent / f".{folder.name}.lock"),
}


@pytest.mark.parametrize("where", LINKS)
def test_nothing_is_written_through_a_link(gift, home, where):
    LINKS[where](prepared(gift), home)
    before = everything(home)
    with pytest.raises(InputError, match=r"link|no regular file"):
        produce(gift)
    assert everything(home) == before
    assert sorted(path.name for path in home.iterdir()) == ["c.1.1-ab.partial", "thesis.txt"]


def test_what_a_lock_file_holds_stays(gift):
    folder = prepared(gift)
    lock = folder.parent / f".{folder.name}.lock"
    lock.write_text("kept")
    produce(gift)
    assert lock.read_text() == "kept"


def test_verify_prints_names_so_that_the_terminal_shows_them(gift):
    folder = craft(gift, {})
    (folder / "a\x1b[31mred").symlink_to("nowhere")
    result = CliRunner().invoke(app, ["verify", str(gift)])
    assert "\x1b" not in result.stdout
    assert "\\x1b[31mred" in result.stdout
