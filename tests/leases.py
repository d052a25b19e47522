"""Real processes that hold the lease of the CPU, and what its log proves."""

import math
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from flows.machine.device_lease import hold_device

CPU = torch.device("cpu")
SERVED = multiprocessing.get_context("forkserver")
SERVED.set_forkserver_preload(["tests.leases"])


@contextmanager
def process(target, *arguments):
    """A process that runs `target(pipe, *arguments)`, and the pipe to it; gone at the end."""
    ours, theirs = SERVED.Pipe()
    started = SERVED.Process(target=target, args=(theirs, *arguments))
    started.start()
    theirs.close()
    try:
        yield started, ours
    finally:
        started.kill()
        started.join()
        ours.close()


def answer(pipe):
    """What the process says next, whenever that is; EOFError if it has ended."""
    return pipe.recv()


def enter(folder):
    """The process server has the environment of another time."""
    os.environ |= {"AGD_LEASE_FOLDER": str(folder), "AGD_LEASE": "on"}


def hold(pipe, folder, what):
    """Take the lease, announcing it over the pipe, and give it back when told."""
    enter(folder)
    with hold_device(CPU, what, pipe.send):
        pipe.send("holds")
        pipe.recv()
    pipe.send("gave back")


def overlaps(
    entries: Sequence[Mapping[str, Any]], deaths: Mapping[int, float] | None = None
) -> list[Mapping[str, Any]]:
    """The entries that show two holders at a time; none if all is well.

    Args:
        entries: `flows.machine.device_lease.acquisitions`, oldest first.
        deaths: by process id, the monotonic clock just before the process was killed.
    """
    wrong, holder = [], None
    for entry in entries:
        acquired = entry["event"] == "acquired"
        free = holder is None or (deaths or {}).get(holder, math.inf) <= entry["monotonic"]
        if not (free if acquired else entry["pid"] == holder):
            wrong.append(entry)
        holder = entry["pid"] if acquired else None
    return wrong
