"""Kill real trainings at random moments and compare the adapter with that of an unbroken run.

python benchmarks/kill_train.py [--kills 30] [--steps 120] [--seed 0] [--folder DIR] [--json]
    [--preset fashion-dit] [--set 'methods=[{kind: lora}]'] [--no-control]

The negative control drops one saved state at a time from a checkpoint that a kill left: the final file must differ, or
the run must refuse. Exit code 1 if anything is not as it should be.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agd_core.basics.checkpoint import checkpoint_sum, load_tensors, save_tensors
from agd_core.basics.digest import file_digest
from agd_core.basics.progress import Progress
from agd_core.models.model import BaseModel
from benchmarks.killing import KILLED, append_line, command_line, kill, lines, show, start, wait
from flows.config import PipelineConfig
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.train import train
from flows.workplace import Workplace
from storage.artefacts import Artefact, find_artefacts

SETTINGS = (
    "collect.trajectories=20",
    "collect.steps=6",
    "collect.kept_steps=3",
    "collect.shard_trajectories=10",
    "train.batch_size=16",
    "train.checkpoint_seconds=0.1",
)
LOG = "steps.log"
CHECKPOINT = "checkpoint.safetensors"
ADAPTER = "adapter.safetensors"

Tensors = Mapping[str, Tensor]
CHANGED: dict[str, Callable[[Tensors], Tensors]] = {
    "optimizer dropped": lambda saved: {name: t for name, t in saved.items() if not name.startswith("optimizer.")},
    "exp_avg dropped": lambda saved: {name: t for name, t in saved.items() if not name.endswith(".exp_avg")},
    "exp_avg zeroed": lambda saved: {
        name: torch.zeros_like(t) if name.endswith(".exp_avg") else t for name, t in saved.items()
    },
    "adapter dropped": lambda saved: {name: t for name, t in saved.items() if not name.startswith("adapter.")},
}
"""What the negative control takes from a checkpoint."""


@dataclass(frozen=True)
class Training:
    """One training that is killed and started again."""

    config: PipelineConfig
    base_model: BaseModel
    trajectories: Artefact
    folder: Path

    def run(self) -> None:
        """What `agd train` does for one adapter."""
        place = Workplace(self.folder, progress=self._progress)
        train(Run(self.config, place, self.base_model), self.config.methods[0], self.trajectories)

    def _progress(self, job: str) -> Progress:
        return lambda done, total, note: append_line(self.folder / LOG, done)

    def in_folder(self, folder: Path) -> "Training":
        """The same training elsewhere."""
        return Training(self.config, self.base_model, self.trajectories, folder)

    def file(self, name: str) -> Path | None:
        """A file of the adapter's artefact, if it is there."""
        return next(self.folder.rglob(name), None)

    def adapter_digest(self) -> str:
        """sha256 of the finished adapter."""
        found = self.file(ADAPTER)
        return file_digest(found) if found else "none"


@dataclass
class Fuzz:
    """Kills at random moments, and what came of them."""

    rng: random.Random
    wanted: int
    life_seconds: float
    digest: str
    counts: Counter[str] = field(default_factory=Counter)

    def round(self, training: Training) -> None:
        """Start and kill one training until it is finished."""
        while status := self._attempt(training):
            self.counts["kills"] += status == KILLED
            self.counts["failed processes"] += status != KILLED
            self.counts["kills that left a checkpoint"] += training.file(CHECKPOINT) is not None
        steps = lines(training.folder / LOG)
        self.counts["rounds"] += 1
        self.counts["steps computed again"] += len(steps) - len(set(steps))
        self.counts["partial files left"] += len(list(training.folder.rglob("*.partial")))
        self.counts["adapters unlike the unbroken run's"] += training.adapter_digest() != self.digest

    def _attempt(self, training: Training) -> int:
        process = start(training.run)
        if self.counts["kills"] < self.wanted:
            time.sleep(self.rng.uniform(0, self.life_seconds / 2))
            kill(process)
        return wait(process)


def control(training: Training, life_seconds: float, digest: str) -> dict[str, str]:
    """What becomes of a killed training whose checkpoint loses one saved state; the first entry loses none."""
    process = start(training.run)
    while (found := training.file(CHECKPOINT)) is None or len(
        lines(training.folder / LOG)
    ) < training.config.train.steps / 3:
        time.sleep(life_seconds / 100)
    kill(process)
    if wait(process) != KILLED or not (found := training.file(CHECKPOINT)):
        raise RuntimeError("the training to be cut ended before it was cut")
    outcomes = {}
    for name, drop in {"nothing dropped": dict, **CHANGED}.items():
        copy = training.in_folder(training.folder.with_name(f"control-{len(outcomes)}"))
        shutil.copytree(training.folder, copy.folder)
        checkpoint = copy.folder / found.relative_to(training.folder)
        tensors, note = load_tensors(checkpoint)
        changed, run = drop(tensors), json.loads(note)
        del run["sha256"]  # sealed again, so that not the checksum but the missing state decides
        run["sha256"] = checkpoint_sum(changed, run)
        save_tensors(changed, checkpoint, json.dumps(run))
        outcomes[name] = outcome(copy, digest)
    return outcomes


def outcome(training: Training, digest: str) -> str:
    """ "same", "differs" or "refused"."""
    if wait(start(lambda: silently(training.run))):
        return "refused"
    return "same" if training.adapter_digest() == digest else "differs"


def silently(work: Callable[[], None]) -> None:
    """Do it without a traceback on the terminal."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    work()


def collected(config: PipelineConfig, base_model: BaseModel, folder: Path) -> Artefact:
    """The trajectories that every training reads."""
    if wait(start(lambda: collect(Run(config, Workplace(folder), base_model)))):
        raise RuntimeError("collecting failed")
    return next(artefact for artefact in find_artefacts(folder) if artefact.finished)


def kill_trainings(
    kills: int, preset: str, settings: Sequence[str], seed: int, folder: Path, controlled: bool = True
) -> dict[str, Any]:
    """Kill until so many kills are reached; returns the measured numbers."""
    torch.set_num_threads(1)
    config = load_config(preset, [*SETTINGS, *settings])
    base_model = config.base_model.build(torch.device("cpu"))
    trajectories = collected(config, base_model, folder / "trajectories")
    training, begin = Training(config, base_model, trajectories, folder / "unbroken"), time.monotonic()
    if wait(start(training.run)):
        raise RuntimeError("the unbroken training failed")
    life, digest = time.monotonic() - begin, training.adapter_digest()
    fuzz = Fuzz(random.Random(seed), kills, life, digest)  # noqa: S311
    while fuzz.counts["kills"] < kills:
        fuzz.round(training.in_folder(folder / str(fuzz.counts["rounds"])))
    dropped = control(training.in_folder(folder / "cut"), life, digest) if controlled else {}
    return {
        "unbroken training, seconds": round(life, 2),
        "steps": config.train.steps,
        **fuzz.counts,
        **{f"control, {name}": result for name, result in dropped.items()},
    }


def as_it_should_be(result: Mapping[str, Any]) -> bool:
    """Every resumed run equals the unbroken one, and every dropped state is noticed."""
    zero = ("failed processes", "partial files left", "adapters unlike the unbroken run's")
    wrong = [result[name] for name in zero]
    if (untouched := "control, nothing dropped") in result:
        wrong += [result[untouched] != "same", *(result[f"control, {name}"] == "same" for name in CHANGED)]
    return not any(wrong)


def main() -> int:
    """Exit code 0 if everything is as it should be."""
    parser = command_line(__doc__, kills=30)
    parser.add_argument("--steps", type=int, default=120, help="of the training")
    parser.add_argument("--preset", default="fashion-dit", help="what is trained, and on which base model")
    parser.add_argument("--set", action="append", default=[], metavar="SETTING=VALUE", help="as agd has it")
    parser.add_argument("--no-control", action="store_true", help="leave the negative control out")
    arguments = parser.parse_args()
    settings = (f"train.steps={arguments.steps}", *arguments.set)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        controlled = not arguments.no_control
        result = kill_trainings(arguments.kills, arguments.preset, settings, arguments.seed, Path(folder), controlled)
    show(result, arguments.json)
    return int(not as_it_should_be(result))


if __name__ == "__main__":
    sys.exit(main())
