"""Reading and writing trajectories, our store against the authors' layout, alternating in one process.

    python benchmarks/store_against_authors.py --folder /tmp/store-bench

Reads are whole random batches of 64 with their conditions, single-threaded on both sides. Warm: from the page cache.
Cold: every file dropped from the page cache, all files and indexes opened anew. Writes: ours with fsync of every shard
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

from agd_core.records import CollectionPlan, PlannedTrajectory
from benchmarks import authors_layout as authors
from storage.objects import LocalObjects
from storage.zarr_store import ZarrTrajectoryStore

BATCH, ROUNDS = 64, 15
MEGABYTE = 1e6


def make_plan(trajectories: int, steps: int, shard: int, latent_shape: tuple[int, int, int], **conditions: np.ndarray):
    count = len(next(iter(conditions.values())))
    rows = tuple(PlannedTrajectory(i, i, i % count, 1.5, tuple(range(steps))) for i in range(trajectories))
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


def write_ours(root: Path, plan: CollectionPlan, pairs: np.ndarray) -> None:
    store = ZarrTrajectoryStore.prepare(LocalObjects(root), plan)
    for unit in range(plan.units):
        with store.write_unit(unit) as writer:
            for step in range(plan.stored_steps):
                for trajectory in plan.unit(unit):
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
        peaks.append(peak_megabytes(lambda: ratios.append(seconds(lambda: write_ours(folder / "ours", plan, pairs)))))
        ratios[-1] = theirs / ratios[-1]
    return statistics.median(ratios), max(peaks)


def measure_reads(folder: Path, plan: CollectionPlan, cold: bool) -> tuple[float, float]:
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
        ours.append(seconds(lambda p=pairs, s=store: s.read(p)))
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
    print("| pairs | MB | read warm | ms a batch | read cold | ms a batch | write | write peak MB | bytes / raw |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, plan in shapes().items():
        pairs = np.random.default_rng(0).normal(size=(7, *plan.pair_shape)).astype(np.float16)
        folder = arguments.folder / "store"
        written, peak = measure_writes(folder, plan, pairs, arguments.rounds)
        warm, warm_seconds = measure_reads(folder, plan, cold=False)
        cold, cold_seconds = measure_reads(folder, plan, cold=True)
        size, ratio = plan.pairs * plan.pair_bytes / MEGABYTE, stored_ratio(folder, plan)
        print(
            f"| {name} | {size:.0f} | {warm:.1f}x | {warm_seconds * 1e3:.2f} | {cold:.1f}x | {cold_seconds * 1e3:.1f} "
            f"| {written:.2f}x | {peak:.1f} | {ratio:.4f} |",
            flush=True,
        )
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
