"""Flip single bits in everything that a run published: does `agd verify` name each file, does nothing load it?

    agd distill tiny-dit --output outputs/flips
    python -m benchmarks.published_flips outputs/flips

Needs a finished run of a miniature with one or more adapters; works on a copy of what it published.
"""

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import diffusers

import agd_core
from agd_core.basics.checksums import CHECKSUMS
from agd_core.builtin.miniatures import miniature_folder
from flows.published import ADAPTER_FILES, REPORT_FILES
from flows.stages.verify import verify

READ_BY_LOADING = (*ADAPTER_FILES[:3], CHECKSUMS)


def main() -> None:
    """Flip, ask, flip back; print how many were found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="output folder of a finished run")
    parser.add_argument("--miniature", default="tiny-dit", help="its base model")
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=13)
    asked = parser.parse_args()
    pipe = diffusers.DiffusionPipeline.from_pretrained(miniature_folder(asked.miniature))
    with tempfile.TemporaryDirectory() as scratch:
        output = _copy_published(asked.output, Path(scratch) / "published")
        print(json.dumps(flip_all(output, pipe, asked.flips, asked.seed), indent=2))


def flip_all(output: Path, pipe: Any, flips: int, seed: int) -> dict[str, Any]:
    """Flip one seeded bit of one seeded file at a time.

    Returns:
        How many flips there were, how many `verify` named, how many were in files that `load_adapter` reads, how many
        of those it refused in one line, and the flips that were missed.
    """
    chance = random.Random(seed)  # noqa: S311 seeded, so that a flip can be seen again
    files = sorted(path for path in output.rglob("*") if path.is_file())
    assert verify(output)["ok"]
    named = read = refused = 0
    missed = []
    for _ in range(flips):
        path = chance.choice(files)
        whole = path.read_bytes()
        place, bit = chance.randrange(len(whole)), chance.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
        seen = any(str(path) in problem for problem in verify(output)["problems"])
        named += seen
        if is_read := path.name in READ_BY_LOADING and path.parent != output:
            read += 1
            stopped = _is_refused(pipe, path.parent)
            refused += stopped
        if not seen or (is_read and not stopped):
            missed.append(f"{path.relative_to(output)} byte {place} bit {bit}")
        path.write_bytes(whole)
    return {"files": len(files), "flips": flips, "named": named, "read": read, "refused": refused, "missed": missed}


def _is_refused(pipe: Any, folder: Path) -> bool:
    try:
        agd_core.load_adapter(pipe, folder)
    except agd_core.InputError as line:
        return "\n" not in str(line)
    agd_core.unload(pipe)
    return False


def _copy_published(output: Path, copy: Path) -> Path:
    copy.mkdir()
    for name in (*REPORT_FILES, CHECKSUMS):
        if (output / name).is_file():
            shutil.copy(output / name, copy)
    shutil.copytree(output / "adapters", copy / "adapters")
    return copy


if __name__ == "__main__":
    main()
