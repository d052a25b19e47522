"""How much of collecting is spent in the store, and how much memory writing, checking and reading take.

    python benchmarks/collect_overhead.py --folder /tmp/overhead

Collects units of the built-in teacher into a local store, timing every call into the store; then writes, checks, adopts
and reads shards of 64 MB and compares resident memory at its highest with before. Medians over the units.
"""

import argparse
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agd_core.data.trajectory import collect_unit
from benchmarks.store_against_authors import make_plan, peak_megabytes, write_ours
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collection_plan
from flows.workplace import Workplace
from storage.objects import LocalObjects
from storage.trajectories.markers import marker_key
from storage.trajectories.zarr_store import ZarrTrajectoryStore

SETTINGS = ("collect.trajectories=256", "collect.steps=50", "collect.kept_steps=null", "collect.shard_trajectories=64")


class Timed:
    """A unit writer that notes the time spent in it."""

    def __init__(self, writer: Any) -> None:
        self.writer, self.seconds = writer, 0.0
        self.wanted = writer.wanted

    def put(self, *arguments: Any) -> None:
        started = time.perf_counter()
        self.writer.put(*arguments)
        self.seconds += time.perf_counter() - started


def store_share(folder: Path) -> list[float]:
    """For every unit: seconds in the store over all seconds."""
    config = load_config("fashion-dit", SETTINGS)
    run = Run(config, Workplace(folder, torch.device("cpu")))
    plan = collection_plan(run)
    store, shares = ZarrTrajectoryStore.prepare(LocalObjects(folder), plan), []
    for unit in range(plan.units):
        started = time.perf_counter()
        with store.write_unit(unit) as writer:
            entered, timed = time.perf_counter(), Timed(writer)
            collect_unit(run.states, run.model, plan, timed, config.collect)
            left = time.perf_counter()
        ended = time.perf_counter()
        shares.append((timed.seconds + (entered - started) + (ended - left)) / (ended - started))
    return shares


def peaks(folder: Path) -> dict[str, float]:
    """Megabytes of resident memory, at its highest, that each kind of work added."""
    plan = make_plan(64, 250, 16, (4, 32, 32), class_labels=np.arange(10))
    pairs = np.random.default_rng(0).normal(size=(7, *plan.pair_shape)).astype(np.float16)
    write_ours(folder / "warm-up", make_plan(2, 5, 2, (4, 32, 32), class_labels=np.arange(10)), pairs)
    found = {"shard": plan.shard_trajectories * plan.stored_steps * plan.pair_bytes / 2**20}
    found["writing four shards"] = write_ours(folder / "store", plan, pairs)
    store = ZarrTrajectoryStore.open(LocalObjects(folder / "store"))
    found["checking every byte"] = peak_megabytes(store.missing_units)
    store.objects.delete(marker_key(0))
    found["adopting a finished shard"] = peak_megabytes(lambda: _adopt(store))
    found["reading 200 batches of 64"] = peak_megabytes(lambda: _read(store))
    return found


def _adopt(store: ZarrTrajectoryStore) -> None:
    with store.write_unit(0) as writer:
        assert not writer.wanted


def _read(store: ZarrTrajectoryStore) -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        store.read(rng.integers(0, store.plan.pairs, 64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    for name, megabytes in peaks(folder).items():
        print(f"{name}: {megabytes:.1f} MiB", flush=True)
    shares = store_share(folder / "teacher")
    print(f"share of collecting spent in the store: {statistics.median(shares):.2%} ({len(shares)} units)")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
