"""Reading and writing trajectories, our store against the authors' layout, alternating in one process.

    python benchmarks/store_against_authors.py --folder /tmp/store-bench

Reads are whole random batches of 64, single-threaded on both sides; the authors' layout reads the conditions with every
item, ours gathers them from the table of distinct conditions (on the CPU here, which is the slow place for it; the
column "latents only" leaves that out). Warm: from the page cache. Cold: every file dropped from the page cache, all
files and indexes opened anew. Writes: ours with fsync of every shard
and marker, theirs with the msync of `memmap.flush` and nothing more. Ratios are theirs / ours, medians of the rounds.
"""

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from agd_core.data.records import CollectionPlan, PlannedTrajectory
from benchmarks import authors_layout as authors
from storage.objects import LocalObjects
from storage.trajectories.zarr_store import ZarrTrajectoryStore

BATCH, ROUNDS = 64, 15
MEGABYTE = 1e6


def make_plan(trajectories: int, steps: int, shard: int, latent_shape: tuple[int, int, int], **conditions: np.ndarray):
    count = len(next(iter(conditions.values())))
    kept, scalars = tuple(range(steps)), {"guidance_scale": 1.5}
    rows = tuple(PlannedTrajectory(i, i, {"condition": i % count}, scalars, kept) for i in range(trajectories))
    timesteps = tuple(float(step) for step in range(steps))
    return CollectionPlan(rows, timesteps, conditions, latent_shape, "float16", shard, shard, {"benchmark": "store"})


def shapes() -> dict[str, CollectionPlan]:
    rng = np.random.default_rng(0)
    prompts = rng.normal(size=(24, 77, 1024)).astype(np.float16)
    return {
        "built-in teacher, 1 KiB": make_plan(512, 50, 64, (4, 8, 8), class_labels=np.arange(10)),
        "DiT-256, 16 KiB": make_plan(48, 250, 8, (4, 32, 32), class_labels=np.arange(1000)),
        "SD2.1, 144 KiB, 24 prompts": make_plan(24, 100, 4, (4, 96, 96), encoder_hidden_states=prompts),
    }


def write_ours(root: Path, plan: CollectionPlan, pairs: np.ndarray) -> float:
    """Write the whole plan; the growth of memory while units are written, in MB."""
    store = ZarrTrajectoryStore.prepare(LocalObjects(root), plan)
    return peak_megabytes(lambda: write_units(store, pairs))


def write_units(store: ZarrTrajectoryStore, pairs: np.ndarray) -> None:
    for unit in range(store.plan.units):
        with store.write_unit(unit) as writer:
            for step in range(store.plan.stored_steps):
                for trajectory in store.plan.unit(unit):
                    writer.put(trajectory.index, step, pairs[(trajectory.index + step) % len(pairs)])


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def drop(paths: Iterable[Path]) -> None:
    """Take files out of the page cache; works without being root once they are on disk."""
    os.sync()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def peak_megabytes(work: Callable[[], object]) -> float:
    """Growth of resident memory at its highest during the work."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def measure_writes(folder: Path, plan: CollectionPlan, pairs: np.ndarray, rounds: int) -> tuple[float, float]:
    """(median ratio, peak MB of ours); the last round's files stay for reading."""
    ratios, peaks = [], []
    for _ in range(rounds):
        shutil.rmtree(folder, ignore_errors=True)
        theirs = seconds(lambda: authors.write_trajectories(folder / "authors", plan, pairs))
        os.sync()
        ratios.append(theirs / seconds(lambda: peaks.append(write_ours(folder / "ours", plan, pairs))))
    return statistics.median(ratios), max(peaks)


def read_ours(store: ZarrTrajectoryStore, gather: bool, pairs: np.ndarray) -> object:
    """A training batch as tensors; `gather` also takes the conditions from their table, which a GPU run does there."""
    batch = store.read(pairs)
    tables = store.plan.conditions if gather else {}
    conditions = {name: torch.from_numpy(table[batch.rows["condition"]]) for name, table in tables.items()}
    return torch.from_numpy(batch.latents), conditions


def measure_reads(folder: Path, plan: CollectionPlan, cold: bool, gather: bool = True) -> tuple[float, float]:
    """(median ratio, our median seconds for a batch)."""
    rng, store = np.random.default_rng(1), ZarrTrajectoryStore.open(LocalObjects(folder / "ours"))
    ratios, ours = [], []
    for _ in range(ROUNDS):
        pairs = rng.integers(0, plan.pairs, BATCH)
        if cold:
            store = ZarrTrajectoryStore.open(LocalObjects(folder / "ours"))
            drop(authors.files(folder))
        theirs = seconds(lambda p=pairs: authors.read_batch(folder / "authors", plan, p))
        if cold:
            drop(authors.files(folder))
        ours.append(seconds(lambda p=pairs, s=store: read_ours(s, gather, p)))
        ratios.append(theirs / ours[-1])
    return statistics.median(ratios[1:]), statistics.median(ours[1:])


def stored_ratio(folder: Path, plan: CollectionPlan) -> float:
    """Bytes of the whole store, conditions left out, over the raw bytes of its latents and predictions."""
    paths = [path for path in authors.files(folder / "ours") if "cond" not in path.parts]
    return sum(path.stat().st_size for path in paths) / (plan.pairs * plan.pair_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of writing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warm_up = make_plan(2, 5, 2, (4, 32, 32), class_labels=np.arange(10))
    write_ours(arguments.folder / "warm-up", warm_up, np.zeros((1, *warm_up.pair_shape), np.float16))
    columns = ("pairs", "MB", "read warm", "ms", "latents only", "read cold", "ms", "write", "peak MB", "bytes / raw")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for name, plan in shapes().items():
        pairs = np.random.default_rng(0).normal(size=(7, *plan.pair_shape)).astype(np.float16)
        folder = arguments.folder / "store"
        written, peak = measure_writes(folder, plan, pairs, arguments.rounds)
        warm, warm_seconds = measure_reads(folder, plan, cold=False)
        latents_only, _ = measure_reads(folder, plan, cold=False, gather=False)
        cold, cold_seconds = measure_reads(folder, plan, cold=True)
        size, ratio = plan.pairs * plan.pair_bytes / MEGABYTE, stored_ratio(folder, plan)
        reads = f"{warm:.1f}x | {warm_seconds * 1e3:.2f} | {latents_only:.1f}x | {cold:.1f}x | {cold_seconds * 1e3:.1f}"
        print(f"| {name} | {size:.0f} | {reads} | {written:.2f}x | {peak:.1f} | {ratio:.4f} |", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
