"""Writers of a small store that die by SIGKILL; `test_zarr_store` runs this file as a script.

    killed_writer.py operations ROOT    one store per file operation, killed right before that operation
    killed_writer.py delays ROOT MS...  one store per delay, committed over and over and killed that long into a commit

Prints one line per store: its folder, and the signal that ended its writer.
"""

import itertools
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from agd_core.records import PlannedTrajectory
from storage.zarr_store import StoreSpec, ZarrTrajectoryWriter

OPERATIONS = {"open", "os.rename", "os.remove", "os.link"}
SHAPES = {"operations": (2, 3, 3), "delays": (4, 96, 96)}


def open_writer(root, mode):
    schedule = tuple(float(999 - 100 * step) for step in range(10))
    plan = [PlannedTrajectory(i, 1000 + i, i % 3, 1.5 + i, (0, 4, 8 + i % 2)) for i in range(3)]
    return ZarrTrajectoryWriter(root, plan, StoreSpec(SHAPES[mode], "float32", 2, schedule, {"key": "k"}))


def block(writer, unit):
    rows = len(writer.planned(unit))
    return np.random.default_rng(unit).standard_normal((rows, 3, 2, *writer.spec.latent_shape), np.float32)


def commit_missing(writer):
    for unit in writer.missing_units():
        writer.commit(unit, block(writer, unit))


def kill_before_operation(root, number):
    def count(event, args):
        nonlocal number
        if event in OPERATIONS and str(args[0]).startswith(str(root)):
            number -= 1
            if number < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def forked(work):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return child


def ended_by(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_operations(root):
    def work():
        kill_before_operation(store, number)
        commit_missing(open_writer(store, "operations"))

    for number in itertools.count():
        store = root / f"{number}"
        status = ended_by(forked(work))
        print(store, status)
        if status == 0:
            return


def run_delays(root, delays):
    def work():
        writer = open_writer(store, "delays")
        for turn in itertools.count():
            os.write(write_end, b".")
            writer.commit(turn % 2, block(writer, turn % 2))

    for number, delay in enumerate(delays):
        store = root / f"{number}"
        read_end, write_end = os.pipe()
        child = forked(work)
        for _ in range(number + 1):
            os.read(read_end, 1)
        time.sleep(delay / 1000)
        os.kill(child, signal.SIGKILL)
        print(store, ended_by(child))


if __name__ == "__main__":
    if sys.argv[1] == "operations":
        run_operations(Path(sys.argv[2]))
    else:
        run_delays(Path(sys.argv[2]), [float(delay) for delay in sys.argv[3:]])
