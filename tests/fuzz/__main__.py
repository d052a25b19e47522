"""Damaged and crafted inputs, by the thousand, over every reader of files from outside.

    python -m tests.fuzz --count 1000 [--first 0] [--reader NAME]
    python -m tests.fuzz --kept

Input number N is damage of seed N to reader N modulo their count; `--kept` takes those that once found something.
Each runs in a process of its own, forked from one that has the libraries loaded. What counts as a fault: a traceback,
more than 20 seconds (`--seconds`), an end by a signal, an exit code that is none of 0, 1 and 2, a control character
on the terminal, a read or change of the folder outside, a change anywhere but in the given folders, a
connection, a started process. Ends with a table, and 1 if there was a fault.
"""

import argparse
import collections
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.readers import READERS, Reader
from tests.fuzz.running import MOST_SECONDS, Templates, run_seed

KEPT: dict[str, tuple[int, ...]] = {
    "images in Zarr 3": (15,),
    "images": (37,),
    "import archive": (10,),
    "base of SD3": (23, 48, 98),
    "base of SD": (47,),
    "load adapter": (380,),
    "distill": (827,),
    "images in Zarr 2": (966,),
}
"""Seeds that found something, by reader."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--reader", choices=[reader.name for reader in READERS])
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("--seconds", type=int, default=MOST_SECONDS, help="that an input may take")
    asked = parser.parse_args()
    _load_libraries()
    root = Path(tempfile.mkdtemp(prefix="agd-fuzz-"))
    try:
        return _fuzz(_inputs(asked), Templates(root), asked.seconds)
    finally:
        shutil.rmtree(root)


def _load_libraries() -> None:
    """Once, before the forks; what starts threads when it is used (zarr's loop) is only imported."""
    import torch
    import zarr  # noqa: F401
    from diffusers import DiTPipeline, StableDiffusion3Pipeline, StableDiffusionPipeline  # noqa: F401

    torch.set_num_threads(1)


def _inputs(asked: argparse.Namespace) -> list[tuple[Reader, int]]:
    if asked.kept:
        by_name = {reader.name: reader for reader in READERS}
        return [(by_name[name], seed) for name, seeds in KEPT.items() for seed in seeds]
    numbers = range(asked.first, asked.first + asked.count)
    pairs = [(READERS[number % len(READERS)], number) for number in numbers]
    return [(reader, seed) for reader, seed in pairs if asked.reader in (None, reader.name)]


def _fuzz(inputs: Sequence[tuple[Reader, int]], templates: Templates, most_seconds: int) -> int:
    faults, ends = 0, collections.Counter[tuple[str, str]]()
    for reader, seed in inputs:
        outcome = run_seed(reader, seed, templates, most_seconds)
        ends[reader.name, outcome.end] += 1
        faults += bool(outcome.faults)
        for fault in outcome.faults:
            print(f"{reader.name}, seed {seed}, {outcome.damage}: {fault}", flush=True)
    print(f"{'reader':20} {'exit 0':>7} {'exit 1':>7} {'exit 2':>7} {'else':>7}")
    for name in dict.fromkeys(reader.name for reader, _ in inputs):
        print(f"{name:20} " + " ".join(f"{ends[name, end]:7}" for end in ("0", "1", "2", "else")))
    print(f"{len(inputs)} inputs, {faults} with faults")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
