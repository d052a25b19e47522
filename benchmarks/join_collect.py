"""Collectors that join one store: how many units they compute together.

python benchmarks/join_collect.py [--collectors 2] [--units 12] [--rounds 10] [--folder DIR] [--json]

Each collector is `agd collect`'s stage in a process and an output folder of its own, as on another machine; the store's
URL is the same. Two may compute one unit twice, the last. Exit code 1 if it is more, or if the content is not what one
collector makes alone.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from agd_core.data.trajectory import collect_unit
from agd_core.models.config import BaseModelConfig
from agd_core.models.model import BaseModel
from benchmarks.killing import answer, append_line, lines, show, start, wait
from flows.presets import load_config
from flows.run import Run
from flows.stages import collect as stage
from flows.stages.collect import collect
from flows.stages.trajectories import open_trajectories
from flows.workplace import Workplace

SETTINGS = ("collect.steps=8", "collect.kept_steps=4", "collect.shard_trajectories=4")


def collect_into(url: Path, output: Path, units: int, base_model: BaseModel) -> str:
    """Content digest of what one collector collects; every unit that it computes is logged beside the store."""

    def logged(states: Any, base: Any, plan: Any, writer: Any, *rest: Any) -> None:
        if writer.wanted:
            append_line(url.with_suffix(".log"), writer.wanted[0].index // plan.unit_trajectories)
        collect_unit(states, base, plan, writer, *rest)

    stage.collect_unit = logged
    config = load_config("fashion-dit", [*SETTINGS, f"collect.trajectories={4 * units}", f"store.url={url}"])
    artefact = collect(Run(config, Workplace(output), base_model))
    return open_trajectories(artefact, str(url)).content_digest()


def computed_together(collectors: int, units: int, folder: Path, base_model: BaseModel) -> tuple[list[int], set[str]]:
    """Units that were computed, in order of beginning, and the content digests that the collectors found."""
    folder.mkdir()
    url = folder / "shared"

    def work(number: int) -> None:
        append_line(folder / "digests.log", collect_into(url, folder / str(number), units, base_model))

    processes = [start(lambda n=number: work(n)) for number in range(collectors)]
    statuses = [wait(process) for process in processes]
    if any(statuses):
        raise RuntimeError("a collector failed")
    return lines(url.with_suffix(".log")), set(lines(folder / "digests.log"))


def measure(collectors: int, units: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Rounds of collectors that start at once; the numbers of units that they computed."""
    base_model = BaseModelConfig().build(torch.device("cpu"))
    expected = answer(lambda: collect_into(folder / "alone", folder / "one", units, base_model))
    counts, wrong = [], 0
    for number in range(rounds):
        computed, digests = computed_together(collectors, units, folder / f"round-{number}", base_model)
        counts.append(len(computed))
        wrong += digests != {expected} or set(computed) != set(range(units))
    return {
        "units": units,
        "collectors": collectors,
        "rounds": rounds,
        "units computed, median": statistics.median(counts),
        "units computed, fewest": min(counts),
        "units computed, most": max(counts),
        "rounds with another content than one collector's": wrong,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if everything is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collectors", type=int, default=2)
    parser.add_argument("--units", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.environ["AGD_LEASE"] = "off"  # the device's lease would let one machine's collectors go one by one
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        result = measure(given.collectors, given.units, given.rounds, Path(folder))
    show(result, given.json)
    pairs = given.collectors * (given.collectors - 1) // 2
    too_many = result["units computed, most"] > given.units + pairs
    return int(too_many or result["rounds with another content than one collector's"] > 0)


if __name__ == "__main__":
    sys.exit(main())
