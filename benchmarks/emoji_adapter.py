"""One pass instead of two on the emoji world: no guidance, CFG and adapters from the same noise, over the scale.

python -m benchmarks.emoji_adapter MODEL JUDGE PICTURES [--images 3000] [--steps 50] [--scales 3 2 5 1.5]
    [--preset FILE] [--set train.steps=1000 train.batch_size=256] [--minutes 5] [--output FOLDER]

With the stages of `agd run`: guided trajectories are collected, the methods of the preset trained, and images sampled.
What is collected and trained stays in the output folder and is reused; every adapter lies there under its name. The
folders are those of benchmarks/emoji_teacher.py. Two cores: --images 500 --steps 20. adapter.json is whole at all
times; adapter.png has no guidance, CFG and the adapters under the same prompts at the first scale.
"""

import argparse
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from agd_core.basics.atomic import write_bytes, write_json
from agd_core.basics.progress import Stopped
from agd_core.evaluation.sampling import SampleSet
from agd_core.methods.adapter_files import FILES, load_student, read_card
from agd_core.models.model import BaseModel
from benchmarks.emoji_pages import named_rows
from benchmarks.emoji_scores import Instruments, relative_error
from benchmarks.emoji_sets import SEED, Asked, Sampler, asked_of, drawn, training_prompts
from flows.config import PipelineConfig
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.train import LOSSES, train
from flows.workplace import Workplace, describe_device, pick_device
from storage.artefacts import Artefact

NO_GUIDANCE, CFG = "no guidance", "CFG"
SCALES = (3.0, 2.0, 5.0, 1.5)
PRESET = Path(__file__).with_suffix(".yaml")
FEW, FEW_LOSSES = 12, 50
_KEPT = 2
"""One of so many sampler steps is stored."""


@dataclass
class Comparison:
    """What is found, row by row, and where it is written."""

    asked: Asked
    instruments: Instruments
    folder: Path
    found: dict[str, Any]
    shown: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, name: str, scale: float, samples: SampleSet, more: Mapping[str, Any]) -> None:
        """Measure a set and write everything again."""
        scores = self.instruments.scores(samples.images, self.asked)
        self.found["rows"].append({"name": name, "scale": scale, "nfe": samples.nfe, **scores, **more})
        self.found["bars"] = bars(self.found["rows"])
        numbers = [f"{key} {each['value']:.4f}" for key, each in (scores["all"] | dict(more)).items()]
        print(f"{name}, scale {scale:g}:", ", ".join(numbers), flush=True)
        write_json(self.found, self.folder / "adapter.json")

    def draw(self, name: str, samples: SampleSet) -> None:
        """A row of the picture."""
        few = self.asked.shown(FEW)
        self.shown[name] = samples.images[few]
        page = named_rows(self.shown, [self.asked.prompts[row] for row in few])
        write_bytes(page, self.folder / "adapter.png")


def configuration(given: argparse.Namespace, pool: list[str], device: torch.device) -> PipelineConfig:
    """The preset with this model, and with as many prompts, one a trajectory, as training will read."""
    prompts, kept = given.output / "prompts.txt", max(1, given.steps // _KEPT)
    on_cpu = device.type == "cpu"
    together = 64 if on_cpu else 640
    asked = {"prompts": str(prompts), "prompt_count": None}
    collected = {"steps": given.steps, "kept_steps": kept, "shard_trajectories": together, "batch_size": together}
    sections = {
        "base_model": {"source": str(given.model), "dtype": "float32" if on_cpu else given.precision},
        "collect": {**asked, **collected},
        "sample": asked,
        "evaluate": {"extractor": "none"},
    }
    config = load_config(given.preset, given.set, sections)
    needed = math.ceil(config.train.pairs_read / (config.collect.reads_per_pair * kept))
    prompts.write_text("\n".join(pool[:needed]) + "\n", encoding="utf-8")
    return config


def trained(run: Run) -> tuple[dict[str, Artefact], list[dict[str, Any]]]:
    """The adapters by name, and what is to be told of each."""
    trajectories, collecting = timed(lambda: collect(run))
    adapters, told = {}, []
    for method in run.config.methods:
        artefact, training = timed(lambda method=method: train(run, method, trajectories))
        adapters[method.label] = artefact
        copy_adapter(artefact.path, run.place.output / method.label)
        seconds = {"collecting_seconds": collecting, "training_seconds": training}
        told.append({"name": method.label, **described(artefact, run.model), **seconds})
        print(told[-1], flush=True)
    return adapters, told


def timed(work: Callable[[], Artefact]) -> tuple[Artefact, float]:
    """What work leaves, and its seconds."""
    started = time.monotonic()
    return work(), time.monotonic() - started


def described(adapter: Artefact, model: BaseModel) -> dict[str, float]:
    """Its parameters, also in percent of the base's, and its first and last losses."""
    losses, parameters = adapter.json(LOSSES, list[float]), read_card(adapter.path)[1].parameters
    first, last = (sum(few) / len(few) for few in (losses[:FEW_LOSSES], losses[-FEW_LOSSES:]))
    share = 100 * parameters / model.parameters
    return {"parameters": parameters, "percent": share, "first_losses": first, "last_losses": last}


def copy_adapter(trained: Path, folder: Path) -> None:
    """What `agd_core.load_adapter` reads."""
    folder.mkdir(exist_ok=True)
    for name in FILES:
        shutil.copyfile(trained / name, folder / name)


def compare(comparison: Comparison, sampler: Sampler, adapters: Mapping[str, Artefact], scales: list[float]) -> None:
    """No guidance once, then CFG and every adapter scale by scale."""
    unguided = sampler.guided(1.0)
    comparison.add(NO_GUIDANCE, 1.0, unguided, {})
    for number, scale in enumerate(scales):
        sets = {NO_GUIDANCE: unguided, CFG: sampler.guided(scale)}
        comparison.add(CFG, scale, sets[CFG], {})
        for name, artefact in adapters.items():
            with load_student(sampler.subjects.base_model, artefact.path) as student:
                sets[name] = sampler.sample(student, scale)
            latents = sets[name].latents, sets[CFG].latents, unguided.latents
            comparison.add(name, scale, sets[name], {"relative_error": relative_error(*latents)})
        for name, samples in sets.items() if number == 0 else ():
            comparison.draw(name, samples)


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every adapter against CFG at its scale."""
    guided = {row["scale"]: row["all"] for row in rows if row["name"] == CFG}
    return [
        {
            "name": row["name"],
            "scale": row["scale"],
            "fd_over_cfg": row["all"]["fd"]["value"] / guided[row["scale"]]["fd"]["value"],
            "name_top1_gained": row["all"]["name_top1"]["value"] - guided[row["scale"]]["name_top1"]["value"],
            "relative_error": row["relative_error"]["value"],
        }
        for row in rows
        if "relative_error" in row
    ]


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("judge", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES)
    parser.add_argument("--preset", default=str(PRESET))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "float16"], default="float16", help="on a GPU")
    parser.add_argument("--judge-only", action="store_true", help="leave EfficientNet-Lite0 out")
    parser.add_argument("--output", type=Path, default=Path("outputs/emoji-adapter"))
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    given = arguments(words)
    device, ends_at = pick_device(given.device), time.monotonic() + 60 * given.minutes
    given.output.mkdir(parents=True, exist_ok=True)
    pictures = drawn(given.pictures)
    config = configuration(given, training_prompts(pictures), device)
    place = Workplace(given.output, device, print, should_stop=lambda: time.monotonic() > ends_at)
    run = Run(config, place).check()
    asked = asked_of(pictures, given.images)
    settings = {"images": len(asked), "steps": given.steps, "seed": SEED, "precision": str(run.model.dtype)}
    try:
        adapters, told = trained(run)
        settings |= {"device": describe_device(device), "train": config.train.identity()}
        found = {"settings": settings, "adapters": told, "rows": []}
        instruments = Instruments.open(given.judge, pictures, device, given.judge_only)
        sampler = Sampler.of(run.model, asked.prompts, given.steps, place.should_stop)
        compare(Comparison(asked, instruments, given.output, found), sampler, adapters, given.scales)
    except Stopped as stop:
        print(f"out of time, {stop}")


if __name__ == "__main__":
    main()
