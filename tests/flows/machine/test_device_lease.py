"""One GPU means one GPU: real processes that want the same device at once, and real kills."""

import multiprocessing
import os
import re
import shutil
import signal
import stat
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.data.dataset import training_batches
from agd_core.data.order import BatchOrder
from flows.machine.device_lease import acquisitions, device_name, hold_device, lease_file
from flows.machine.file_lock import is_named, open_shared
from tests.leases import CPU, answer, enter, hold, overlaps, process

NOBODY = 65534


@dataclass
class StuckReader:
    """Reads one batch, and is then caught in a read that does not return."""

    plan: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(pairs=32))
    reads: int = 0

    def read(self, pairs):
        self.reads += 1
        if self.reads > 1:
            time.sleep(600)
        return pairs


def hold_with_loader(pipe, folder, what):
    """Hold it as a training does, with reading processes that inherit the lock."""
    enter(folder)
    with hold_device(CPU, what, pipe.send):
        batches = training_batches(StuckReader(), BatchOrder(32, 8, 0), range(4), workers=2, start_method="fork")
        next(batches)
        assert len(multiprocessing.active_children()) == 2
        pipe.send("holds")
        pipe.recv()


def hold_with_child(pipe, folder, what):
    """Hold it, with a forked child that has made no wish to die."""
    enter(folder)
    with hold_device(CPU, what):
        child = os.fork()
        if child == 0:
            time.sleep(600)
        pipe.send(child)
        pipe.recv()


def take_turns(pipe, folder, times):
    """Hold it several times; fails if anybody else is inside at the same moment."""
    enter(folder)
    pipe.recv()
    for turn in range(times):
        with hold_device(CPU, f"turn {turn}"):
            inside = os.open(folder / "inside", os.O_CREAT | os.O_EXCL)
            time.sleep(0.02)
            os.close(inside)
            os.unlink(folder / "inside")


def hold_as_nobody(pipe, folder, what):
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    hold(pipe, folder, what)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AGD_LEASE_FOLDER", str(tmp_path / "leases"))
    monkeypatch.setenv("AGD_LEASE", "on")
    return tmp_path / "leases"


# --- one holder at a time


def test_of_seven_at_once_never_two_hold_it(folder):
    folder.mkdir()
    with ExitStack() as stack:
        turns = [stack.enter_context(process(take_turns, folder, 2)) for _ in range(7)]
        for _, pipe in turns:
            pipe.send("go")
        for started, _ in turns:
            started.join()
        assert [started.exitcode for started, _ in turns] == [0] * 7
        pids = {started.pid for started, _ in turns}
    entries = acquisitions(CPU)
    assert [entry["event"] for entry in entries] == ["acquired", "released"] * 14
    assert {entry["pid"] for entry in entries} == pids
    assert overlaps(entries) == []
    assert entries == sorted(entries, key=lambda entry: entry["monotonic"])


def test_the_log_would_show_two_holders():
    def line(event, pid, seconds):
        return {"event": event, "pid": pid, "monotonic": seconds}

    a, b = line("acquired", 1, 10.0), line("acquired", 2, 20.0)
    assert overlaps([a, b, line("released", 2, 30.0)]) == [b]
    assert overlaps([a, b], deaths={1: 25.0}) == [b]
    assert overlaps([a, b], deaths={1: 15.0}) == []
    late = line("released", 1, 25.0)
    assert overlaps([a, b, late], deaths={1: 15.0}) == [late]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines with one core
@pytest.mark.parametrize("holding", [hold, hold_with_loader])
def test_a_killed_holder_frees_it(folder, holding):
    with process(holding, folder, "train") as (holder, pipe):
        assert answer(pipe) == "holds"
        with process(hold, folder, "sample") as (_, waiting):
            assert answer(waiting).startswith(f"waiting for cpu: held by process {holder.pid} ")
            died = time.monotonic()
            holder.kill()
            assert answer(waiting) == "holds"
    assert [entry["what"] for entry in acquisitions(CPU)] == ["train", "sample"]
    assert overlaps(acquisitions(CPU), {holder.pid: died}) == []


def acquired_by(started):
    return acquisitions(CPU)[-1]["pid"] == started.pid


def test_a_forked_child_that_lives_on_keeps_the_device(folder):
    """Which is why no loader worker does: see `agd_core.basics.parent_death`."""
    with process(hold_with_child, folder, "train") as (holder, pipe):
        child = answer(pipe)
        holder.kill()
        holder.join()
        try:
            with pytest.raises(Stopped), hold_device(CPU, "next", should_stop=lambda: True):
                pass
        finally:
            os.kill(child, signal.SIGKILL)
        with hold_device(CPU, "next"):
            assert acquired_by(multiprocessing.current_process())


def test_a_forked_child_does_not_keep_what_its_parent_gave_back(folder):
    with process(hold_with_child, folder, "train") as (_, pipe):
        child = answer(pipe)
        pipe.send("give back")
        with hold_device(CPU, "next"):
            os.kill(child, signal.SIGKILL)


# --- waiting


def test_who_waits_names_the_holder_once_and_can_be_stopped(folder):
    lines, polls = [], iter([False] * 3 + [True])
    with process(hold, folder, "train agd-offset") as (holder, pipe):
        assert answer(pipe) == "holds"
        with (
            pytest.raises(Stopped) as stopped,
            hold_device(CPU, "sample", lines.append, lambda: next(polls)),
        ):
            pass
        (line,) = lines
        who = rf"held by process {holder.pid} since \d\d:\d\d, train agd-offset"
        assert re.fullmatch(rf"waiting for cpu: {who} \(AGD_LEASE_FOLDER .*, AGD_LEASE=off .*\)", line)
        assert str(stopped.value) == f"stopped while {line}; run the same command again"
        assert next(polls, "none left") == "none left"


def test_a_holder_that_left_no_readable_line_is_another_process(folder):
    lines = []
    with process(hold, folder, "train") as (_, pipe):
        assert answer(pipe) == "holds"
        os.truncate(lease_file(CPU), 5)
        with pytest.raises(Stopped), hold_device(CPU, "sample", lines.append, lambda: True):
            pass
    assert lines[0].startswith("waiting for cpu: held by another process (AGD_LEASE_FOLDER names ")


# --- one process, many users


def test_a_nested_hold_is_free(folder):
    with hold_device(CPU, "outer"), hold_device(CPU, "inner", should_stop=lambda: pytest.fail("waited")):
        pass
    assert [(entry["event"], entry["what"]) for entry in acquisitions(CPU)] == [
        ("acquired", "outer"),
        ("released", "outer"),
    ]


def test_another_thread_is_covered_and_the_last_user_frees_it(folder):
    inside, leave = threading.Event(), threading.Event()

    def use():
        with hold_device(CPU, "thread"):
            inside.set()
            leave.wait()

    thread = threading.Thread(target=use)
    with hold_device(CPU, "main"):
        thread.start()
        assert inside.wait()
    with process(hold, folder, "other") as (_, pipe):
        assert answer(pipe).startswith(f"waiting for cpu: held by process {os.getpid()} ")
        leave.set()
        thread.join()
        assert answer(pipe) == "holds"
    assert overlaps(acquisitions(CPU)) == []


def test_a_failure_inside_frees_it(folder):
    with pytest.raises(ZeroDivisionError), hold_device(CPU, "divide"):
        _ = 1 / 0
    with process(hold, folder, "other") as (_, pipe):
        assert answer(pipe) == "holds"


# --- the files


def test_files_are_for_every_user_whatever_the_umask(folder):
    before = os.umask(0o077)
    try:
        with hold_device(CPU, "train"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o1777
    assert stat.S_IMODE(lease_file(CPU).stat().st_mode) == 0o666


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; run the tests as root")
def test_two_users_share_a_device(monkeypatch):
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)  # noqa: S103
        folder = Path(parent, "leases")
        monkeypatch.setenv("AGD_LEASE_FOLDER", str(folder))
        with hold_device(CPU, "train"):
            pass
        with process(hold_as_nobody, folder, "sample") as (_, pipe):
            assert answer(pipe) == "holds"
            with pytest.raises(Stopped, match="sample"), hold_device(CPU, "train", should_stop=lambda: True):
                pass


@pytest.mark.parametrize("linked", ["folder", "file"])
def test_links_are_not_followed(folder, tmp_path, linked):
    victim = tmp_path / "victim"
    if linked == "folder":
        victim.mkdir()
        folder.symlink_to(victim)
    else:
        folder.mkdir()
        victim.write_text("precious")
        lease_file(CPU).symlink_to(victim)
    with pytest.raises(InputError, match=r"cpu\.jsonl cannot be used: \S+ is a symbolic link; AGD_LEASE_FOLDER"):
        hold_device(CPU, "train").__enter__()
    assert list(victim.iterdir()) == [] if linked == "folder" else victim.read_text() == "precious"


def test_a_folder_that_cannot_be_is_one_clear_line(folder):
    folder.write_text("a file")
    with pytest.raises(InputError, match=r"^the device's lease \S+ cannot be used: Not a directory; [^\n]*$"):
        hold_device(CPU, "train").__enter__()


def test_a_folder_that_is_taken_away_ends_the_waiting(folder):
    with process(hold, folder, "train") as (_, pipe):
        assert answer(pipe) == "holds"
        with (
            pytest.raises(InputError, match=r"cannot be used: No such file or directory; AGD_LEASE"),
            hold_device(CPU, "sample", announce=lambda line: shutil.rmtree(folder)),
        ):
            pass
        pipe.send("give back")
        assert answer(pipe) == "gave back"


def test_a_lease_file_that_was_replaced_is_not_the_lease(folder):
    folder.mkdir()
    path = folder / "cpu.jsonl"
    descriptor = open_shared(path)
    assert is_named(descriptor, path)
    path.unlink()
    assert not is_named(descriptor, path)
    os.close(open_shared(path))
    assert not is_named(descriptor, path)
    os.close(descriptor)


def test_a_long_log_is_begun_anew(folder):
    folder.mkdir()
    with hold_device(CPU, "first"):
        pass
    line = lease_file(CPU).read_text()
    lease_file(CPU).write_text(line * ((1 << 20) // len(line)))
    with hold_device(CPU, "second"):
        assert acquisitions(CPU)[0]["what"] == "first"
    lease_file(CPU).write_text(line * ((1 << 20) // len(line) + 1))
    with hold_device(CPU, "third"):
        assert [entry["what"] for entry in acquisitions(CPU)] == ["third"]


# --- settings


def test_switched_off_nobody_waits(folder, monkeypatch):
    monkeypatch.setenv("AGD_LEASE", "off")
    with process(hold, folder, "train") as (_, pipe):
        assert answer(pipe) == "holds"
        with hold_device(CPU, "sample", should_stop=lambda: pytest.fail("waited")):
            pass
    assert [entry["what"] for entry in acquisitions(CPU)] == ["train"]


def test_an_unknown_setting_is_refused(folder, monkeypatch):
    monkeypatch.setenv("AGD_LEASE", "of")
    with pytest.raises(InputError, match="AGD_LEASE is 'of'; allowed: on, off"):
        hold_device(CPU, "train").__enter__()


def test_a_gpu_is_known_by_its_uuid(monkeypatch):
    class Properties:
        uuid = "1b4e-0"

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties if index == 3 else object())
    names = [device_name(torch.device(name)) for name in ("cuda", "cuda:3", "cuda:1", "cpu")]
    assert names == ["cuda-1b4e-0", "cuda-1b4e-0", "cuda-1", "cpu"]
