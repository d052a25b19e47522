"""Real processes whose parent is killed; what they started must be gone, or have had its chance to save."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from agd_core.dataset import training_batches
from agd_core.order import BatchOrder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import os, signal, sys, time
from agd_core.parent_death import die_with_parent
def save(number, frame):
    print("saved", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, save)
wish = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}.get(sys.argv[1])
if wish:
    die_with_parent(wish, int(sys.argv[2]) if len(sys.argv) > 2 else None)
print(os.getpid(), flush=True)
time.sleep(600)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


@dataclass
class StuckReader:
    """Reads one batch, and is then caught in a read that does not return."""

    plan: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(pairs=32))
    reads: int = 0

    def read(self, pairs: np.ndarray) -> np.ndarray:
        self.reads += 1
        if self.reads > 1:
            time.sleep(600)
        return pairs


def stuck_training(pipe, start_method):
    batches = training_batches(StuckReader(), BatchOrder(32, 8, 0), 0, 4, workers=1, start_method=start_method)
    next(batches)
    pipe.send([worker.pid for worker in multiprocessing.active_children()])
    time.sleep(600)


def run(*command):
    return subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def gone_within(seconds, pid):
    deadline = time.monotonic() + seconds
    while not gone(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def end(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("wish", "last_words"), [("kill", ""), ("terminate", "saved\n")])
def test_a_process_ends_with_its_killed_parent(wish, last_words):
    parent = run(PARENT, CHILD, wish)
    child = int(parent.stdout.readline())
    parent.kill()
    assert parent.communicate(timeout=10)[0] == last_words
    assert gone_within(1, child)


def test_without_the_wish_it_would_live_on():
    parent = run(PARENT, CHILD, "nothing")
    child = int(parent.stdout.readline())
    try:
        parent.kill()
        parent.wait(timeout=10)
        assert not gone_within(1, child)
    finally:
        end(child)
        parent.communicate(timeout=10)


def test_a_parent_that_died_before_is_noticed():
    dead = run("pass")
    dead.communicate(timeout=10)
    orphan = run(CHILD, "terminate", str(dead.pid))
    assert orphan.communicate(timeout=10)[0] == "saved\n"
    assert orphan.returncode == 0


def test_a_living_parent_is_left_alone():
    child = run(CHILD, "terminate", str(os.getpid()))
    assert int(child.stdout.readline()) == child.pid
    child.kill()
    assert child.communicate(timeout=10)[0] == ""


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_loader_workers_die_with_a_killed_training(start_method):
    ours, theirs = multiprocessing.Pipe()
    training = multiprocessing.get_context("spawn").Process(target=stuck_training, args=(theirs, start_method))
    training.start()
    theirs.close()
    (worker,) = ours.recv()
    assert not gone(worker)
    training.kill()
    training.join(timeout=10)
    try:
        assert gone_within(2, worker)
    finally:
        end(worker)
