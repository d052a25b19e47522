"""Kill real collections at random moments and check what is left.

python benchmarks/kill_collect.py [--kills 200] [--trajectories 75] [--seed 0] [--set KEY=VALUE ...] [--folder DIR]
    [--json]

Rounds alternate: `agd collect`'s stage, killed and started again until it is done; and two collectors that share one
store, as on two machines, without the locks that keep runs apart on one, one or both killed. After every kill each unit
that has a marker must be whole to the byte. Exit code 1 if anything is not as it should be.
"""

import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from agd_core.data.records import CollectionPlan
from agd_core.data.trajectory import collect_unit
from agd_core.models.model import BaseModel
from benchmarks.killing import KILLED, answer, append_line, command_line, kill, lines, show, start, wait
from flows.config import PipelineConfig
from flows.presets import load_config
from flows.run import Run
from flows.stages import collect as stage
from flows.stages.trajectories import new_store
from flows.workplace import Workplace
from storage.artefacts import ARTEFACTS, ArtefactStore
from storage.errors import Damaged
from storage.objects import LocalObjects
from storage.trajectories.markers import marker_key
from storage.trajectories.verification import store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore

SETTINGS = (
    "collect.steps=8",
    "collect.kept_steps=4",
    "collect.shard_trajectories=2",
    "collect.unit_trajectories=6",
    "collect.batch_size=4",
)
"""Units of three shards; the first two are sampled together, so one may be left finished without the other."""
LOG = "computed.log"
KILLS_PER_ROUND = 5


@dataclass(frozen=True)
class Collection:
    """One place that is collected into, killed and started again."""

    config: PipelineConfig
    base_model: BaseModel
    plan: CollectionPlan
    folder: Path
    store: Path
    marked: dict[int, str] = field(default_factory=dict)
    """Every marker that was ever seen, as hex."""

    @property
    def run(self) -> Run:
        """The run that collects."""
        return Run(self.config, Workplace(self.folder), self.base_model)

    def run_stage(self) -> None:
        """What `agd collect` does."""
        stage.collect_unit = self.logged_unit
        stage.collect(self.run)

    def run_store(self) -> None:
        """Collect straight into the store, without the artefact and its lock."""
        stage.collect_unit = self.logged_unit
        store = ZarrTrajectoryStore.prepare(LocalObjects(self.store), self.plan)
        stage.collect_missing(self.run, store, store.missing_units())

    def logged_unit(self, states: Any, base_model: Any, plan: Any, writer: Any, *rest: Any) -> None:
        """`collect_unit`, noting first what is computed and whether it was finished already."""
        if wanted := [trajectory.index for trajectory in writer.wanted]:
            unit = wanted[0] // plan.unit_trajectories
            append_line(self.folder / LOG, {"unit": unit, "marked": (self.store / marker_key(unit)).exists()})
        collect_unit(states, base_model, plan, writer, *rest)

    def visible(self) -> dict[str, Any]:
        """What a reader may see now: units with a marker, and what is wrong with any of them."""
        keys = {unit: self.store / marker_key(unit) for unit in range(self.plan.units)}
        seen = {unit: path.read_bytes().hex() for unit, path in keys.items() if path.exists()}
        try:
            store = ZarrTrajectoryStore.open(LocalObjects(self.store))
        except (FileNotFoundError, Damaged):
            return {"seen": seen, "torn": len(seen)}
        return {"seen": seen, "torn": sum(bool(store.unit_problems(unit)) for unit in seen)}

    def final(self) -> dict[str, Any]:
        """The finished store, after one more preparation."""
        store = ZarrTrajectoryStore.prepare(LocalObjects(self.store), self.plan)
        return {
            "digest": store.content_digest(),
            "problems": len(store_problems(store.objects)),
            "adopted": sum(shard.provenance == "adopted" for shard in store.committed_shards()),
            "partial": len(list(self.folder.rglob("*.partial"))),
        }


@dataclass
class Fuzz:
    """Kills at random moments, and what was found after them."""

    rng: random.Random
    wanted: int
    life_seconds: float
    digest: str
    counts: Counter[str] = field(default_factory=Counter)
    stop_at: int = 0
    """Kills after which the current round is left in peace."""

    def round(self, collection: Collection, race: bool) -> None:
        """Start, kill and check one collection until it is finished."""
        work, count = (collection.run_store, 2) if race else (collection.run_stage, 1)
        self.stop_at = min(self.wanted, self.counts["kills"] + KILLS_PER_ROUND)
        while not self._attempt(collection, [start(work) for _ in range(count)]):
            self._check(collection)
        found = answer(collection.final)
        self._check(collection)
        computed = lines(collection.folder / LOG)
        self.counts["rounds"] += 1
        self.counts["rounds of two racing collectors"] += race
        self.counts["orphan shards adopted"] += found["adopted"]
        self.counts["finished units computed again"] += sum(entry["marked"] for entry in computed)
        self.counts["units computed more than once"] += len(computed) - len({entry["unit"] for entry in computed})
        self.counts["problems in finished stores"] += found["problems"]
        self.counts["partial files left"] += found["partial"]
        self.counts["content digests unlike the unbroken run's"] += found["digest"] != self.digest

    def _attempt(self, collection: Collection, processes: list[int]) -> bool:
        """Let processes run, and kill some; True if all ended by themselves."""
        for process in self._victims(processes):
            time.sleep(self.rng.uniform(0, self.life_seconds / 3))
            kill(process)
            if len(processes) > 1:
                self._check(collection)
        statuses = [wait(process) for process in processes]
        self.counts["kills"] += statuses.count(KILLED)
        self.counts["failed processes"] += sum(status not in (0, KILLED) for status in statuses)
        return not any(statuses)

    def _victims(self, processes: list[int]) -> list[int]:
        if self.counts["kills"] >= self.stop_at:
            return []
        return self.rng.sample(processes, self.rng.randint(1, len(processes)))

    def _check(self, collection: Collection) -> None:
        found = answer(collection.visible)
        seen = {int(unit): marker for unit, marker in found["seen"].items()}
        self.counts["checks of what is visible"] += 1
        self.counts["torn units visible"] += found["torn"]
        self.counts["markers changed or lost"] += sum(seen.get(u) != marker for u, marker in collection.marked.items())
        collection.marked.update(seen)


def new_collection(config: PipelineConfig, base_model: BaseModel, folder: Path) -> Collection:
    """An empty place to collect into."""
    folder.mkdir()
    plan = stage.collection_plan(Run(config, Workplace(folder), base_model))
    artefact = ArtefactStore(folder / ARTEFACTS).artefact(stage.STAGE, stage.artefact_identity(plan))
    return Collection(config, base_model, plan, folder, Path(new_store(artefact, None).url))


def unbroken(collection: Collection) -> tuple[float, str]:
    """Seconds and content digest of a collection that nobody kills."""
    begin = time.monotonic()
    if wait(start(collection.run_stage)):
        raise RuntimeError("the unbroken collection failed")
    return time.monotonic() - begin, answer(collection.final)["digest"]


def kill_collections(config: PipelineConfig, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill until so many kills are reached; returns the measured numbers."""
    torch.set_num_threads(1)
    os.environ["AGD_LEASE"] = "off"
    base_model = config.base_model.build(torch.device("cpu"))
    life, digest = unbroken(new_collection(config, base_model, folder / "unbroken"))
    fuzz = Fuzz(random.Random(seed), kills, life, digest)  # noqa: S311
    while fuzz.counts["kills"] < kills:
        number = fuzz.counts["rounds"]
        collection = new_collection(config, base_model, folder / str(number))
        fuzz.round(collection, race=number % 2 == 0)
        shutil.rmtree(collection.folder)
    return {"unbroken collection, seconds": round(life, 2), **fuzz.counts}


MUST_BE_ZERO = (
    "torn units visible",
    "markers changed or lost",
    "finished units computed again",
    "problems in finished stores",
    "partial files left",
    "content digests unlike the unbroken run's",
    "failed processes",
)


def main() -> int:
    """Exit code 0 if everything is as it should be."""
    parser = command_line(__doc__, kills=200)
    parser.add_argument("--trajectories", type=int, default=75, help="of each collection")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further settings of the collection")
    arguments = parser.parse_args()
    config = load_config("fashion-dit", [*SETTINGS, f"collect.trajectories={arguments.trajectories}", *arguments.set])
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = kill_collections(config, arguments.kills, arguments.seed, Path(folder))
    show(result, arguments.json)
    return int(any(result[name] for name in MUST_BE_ZERO))


if __name__ == "__main__":
    sys.exit(main())
