"""Real processes whose parent is killed; what they started must be gone, or have had its chance to save."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from agd_core.data.dataset import training_batches
from agd_core.data.order import BatchOrder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")

ROOT = Path(__file__).resolve().parents[3]
CHILD = """
import os, signal, sys
from agd_core.basics.parent_death import die_with_parent
signals = {signal.SIGTERM, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until they are waited for: none comes too early
wish = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}.get(sys.argv[1])
if wish:
    die_with_parent(wish, int(sys.argv[2]) if len(sys.argv) > 2 else None)
print(os.getpid(), flush=True)
while signal.sigwait(signals) != signal.SIGTERM:
    print("alive", flush=True)
print("saved", flush=True)
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
            signal.pause()
        return pairs


def stuck_training(pipe, start_method):
    batches = training_batches(StuckReader(), BatchOrder(32, 8, 0), range(4), workers=1, start_method=start_method)
    next(batches)
    pipe.send([worker.pid for worker in multiprocessing.active_children()])
    signal.pause()


def run(*command):
    return subprocess.Popen([sys.executable, "-c", *command], stdout=subprocess.PIPE, text=True, cwd=ROOT)


@contextmanager
def watched(pid):
    """A descriptor that becomes readable when the process ends; what still runs at the end is killed."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def ends(descriptor):
    """Wait for the end."""
    return bool(select.select([descriptor], [], [])[0])


@pytest.mark.parametrize(("wish", "last_words"), [("kill", ""), ("terminate", "saved\n")])
def test_a_process_ends_with_its_killed_parent(wish, last_words):
    parent = run(PARENT, CHILD, wish)
    with watched(int(parent.stdout.readline())) as child:
        parent.kill()
        assert ends(child)
        assert parent.communicate()[0] == last_words


def test_without_the_wish_it_would_live_on():
    """It answers after its parent's end; a signal of that death would have come before the answer."""
    parent = run(PARENT, CHILD, "nothing")
    number = int(parent.stdout.readline())
    with watched(number):
        parent.kill()
        parent.wait()
        os.kill(number, signal.SIGUSR1)
        assert parent.stdout.readline() == "alive\n"
    parent.communicate()


def test_a_parent_that_died_before_is_noticed():
    dead = run("pass")
    dead.communicate()
    orphan = run(CHILD, "terminate", str(dead.pid))
    assert orphan.communicate()[0] == f"{orphan.pid}\nsaved\n"
    assert orphan.returncode == 0


def test_a_living_parent_is_left_alone():
    child = run(CHILD, "terminate", str(os.getpid()))
    assert int(child.stdout.readline()) == child.pid
    child.kill()
    assert child.communicate()[0] == ""


@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_loader_workers_die_with_a_killed_training(start_method):
    ours, theirs = multiprocessing.Pipe()
    training = multiprocessing.get_context("spawn").Process(target=stuck_training, args=(theirs, start_method))
    training.start()
    theirs.close()
    (number,) = ours.recv()
    with watched(number) as worker:
        training.kill()
        training.join()
        assert ends(worker)
