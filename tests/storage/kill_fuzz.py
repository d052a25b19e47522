"""Writers of a small store that meet with an accident; `test_zarr_resume` runs this file as a script.

    kill_fuzz.py ROOT MODE[=COUNT]...

    operations=1  one store per file operation that changes something, or per so many: its writer is killed right before
    growth=1      the same for stores that take units over from another one
    moments=6     one store, written over and over by two racing writers, killed so many times at random moments
    race=5        stores that are prepared and written by two processes at once
    rivals=5      stores that are prepared by two processes with different settings at once
    full          a disk that is full: no file may grow beyond 100 kB
    forbidden     a writer that lost its permission

Prints a line per store: the mode, the store's folder, how each of its writers ended, and what they said.
"""

import itertools
import os
import random
import resource
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from storage.errors import OtherContent
from storage.objects import LocalObjects
from storage.trajectories.sharing import shared_units, take_over
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import make_plan, write, write_missing

OPERATIONS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir"}
NOBODY = 65534
REFUSED = 7


LARGE = make_plan(5, 8, latent_shape=(4, 24, 24))


def small_plan(trajectories=3):
    plan = make_plan(trajectories, 8, shard=1, unit=2)
    return replace(plan, conditions={"class_labels": plan.conditions["class_labels"]})


def write_store(root, plan=LARGE):
    return write_missing(ZarrTrajectoryStore.prepare(LocalObjects(root), plan))


def grow_store(root, source):
    store = ZarrTrajectoryStore.prepare(LocalObjects(root), small_plan(5))
    for unit in shared_units(LocalObjects(source), store.plan, store.missing_units()):
        take_over(store, LocalObjects(source), unit)
    return write_missing(store)


def kill_before_operation(root, number):
    def count(event, args):
        nonlocal number
        if event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        if event in OPERATIONS and any(str(argument).startswith(str(root)) for argument in args[:2]):
            number -= 1
            if number < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def forked(work, *arguments):
    child = os.fork()
    if not child:
        try:
            work(*arguments)
        except OSError as error:
            print("said", f"{type(error).__name__}: {error}")
            os._exit(REFUSED)
        except OtherContent as error:
            print("said", f"OtherContent: {error}")
            os._exit(REFUSED)
        except BaseException as error:
            print(f"unexpected {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return child


def ended(*children):
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def at_once(*works):
    """Processes that begin at the same moment."""
    begin = time.monotonic() + 0.005

    def later(work):
        while time.monotonic() < begin:
            pass
        work()

    return [forked(later, work) for work in works]


def operations(root, every=1):
    kill_before_every_operation("operations", every, root, lambda store: write_store(store, small_plan()))


def growth(root, every=1):
    assert ended(forked(write_store, root / "source", small_plan(4))) == [0]
    kill_before_every_operation("growth", every, root, lambda store: grow_store(store, root / "source"))


def kill_before_every_operation(mode, every, root, make_store):
    def work(store, number):
        kill_before_operation(store, number)
        make_store(store)

    for number in itertools.count(0, every):
        statuses = ended(forked(work, root / str(number), number))
        report(mode, root / str(number), statuses)
        if statuses == [0]:
            return


def moments(root, kills=6):
    rng, begin = random.Random(0), time.monotonic()  # noqa: S311
    assert ended(forked(write_store, root / "unbroken")) == [0]
    life = time.monotonic() - begin
    while kills > 0:
        children = at_once(*[lambda: write_store(root / "killed")] * 2)
        time.sleep(rng.uniform(0, life))
        for child in children[: rng.randint(1, 2)]:
            os.kill(child, signal.SIGKILL)
        statuses = ended(*children)
        kills -= statuses.count(-signal.SIGKILL)
        if not any(statuses):
            shutil.rmtree(root / "killed")
    report("moments", root / "killed", ended(forked(write_store, root / "killed")))


def race(root, rounds=5):
    for number in range(rounds):
        statuses = ended(*at_once(*[lambda store=root / str(number): write_store(store)] * 2))
        report("race", root / str(number), statuses)


def rivals(root, rounds=5):
    plans = [make_plan(identity={"collect": {"seed": seed}}) for seed in range(2)]
    for number in range(rounds):
        works = [lambda plan=plan, store=root / str(number): write_store(store, plan) for plan in plans]
        report("rivals", root / str(number), ended(*at_once(*works)))


def full(root):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        write(ZarrTrajectoryStore.open(LocalObjects(root)), 0)

    assert ended(forked(lambda: write(ZarrTrajectoryStore.prepare(LocalObjects(root), LARGE), 1))) == [0]
    report("full", root, ended(forked(work)))


def forbidden(root):
    def work():
        if os.getuid() == 0:
            os.setgroups([])
            os.setuid(NOBODY)
        write(ZarrTrajectoryStore.open(LocalObjects(root)), 0)

    assert ended(forked(lambda: write(ZarrTrajectoryStore.prepare(LocalObjects(root), LARGE), 1))) == [0]
    for folder in (root, *root.parents):
        if folder.owner() == root.owner():
            folder.chmod(folder.stat().st_mode | 0o055)
    (root / "latents").chmod(0o555)
    report("forbidden", root, ended(forked(work)))
    (root / "latents").chmod(0o755)


def report(mode, store, statuses):
    print(mode, store, *statuses)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    for mode in sys.argv[2:]:
        name, _, count = mode.partition("=")
        folder = Path(sys.argv[1]) / name
        folder.mkdir()
        globals()[name](folder, *([int(count)] if count else []))
