"""Does guidance help the emoji world's base? Names, styles, alignment and distance over the guidance scale.

python -m benchmarks.emoji_teacher MODEL JUDGE PICTURES [--images 3000] [--steps 50] [--minutes 5] [--output FOLDER]

MODEL and JUDGE are folders that `agd pretrain` left, PICTURES is the one with the drawn emoji (one .parquet a style).
The judge's own accuracy comes first, then that of the real pictures of the same prompts, which no model can pass by
much. Every scale has the same prompts and the same noise. Scales come in the order of --scales; after --minutes what is
finished stays. teacher.json is whole at all times; best.png has 100 images at the scale of least distance, not picked:
the first of held-out and of trained prompts; scales.png a few prompts over all scales.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from agd_core.basics.atomic import write_bytes, write_json
from agd_core.basics.progress import Stopped
from agd_core.basics.safe_files import read_json
from agd_core.pretraining.emoji.images import EmojiImages
from agd_core.pretraining.emoji.judge import JudgeRecipe, split_for_judge
from benchmarks.emoji_pages import captioned, named_rows
from benchmarks.emoji_scores import Instruments, plain
from benchmarks.emoji_sets import SEED, Asked, Sampler, asked_of, drawn, open_model
from flows.stages.pretrain_emoji_judge import ACCURACY, judged
from flows.workplace import describe_device, pick_device

SCALES = (1.0, 3.0, 2.0, 5.0, 1.5, 8.0)
UNGUIDED = 1.0
PAGE, COLUMNS, FEW = 100, 10, 14
TABLE = ("name_top1", "name_top5", "style_top1", "clip_score", "fd")
_STARTED = time.monotonic()


@dataclass
class Sweep:
    """What is found, scale by scale, and where it is written."""

    asked: Asked
    folder: Path
    found: dict[str, Any]
    images: dict[float, UInt8[Tensor, "images height width 3"]] = field(default_factory=dict)

    def add(self, scale: float, images: UInt8[Tensor, "images height width 3"], scores: Mapping[str, Any]) -> None:
        """Take a scale's images and scores, and write all files again."""
        self.images[scale] = images
        self.found["scales"] = sorted([*self.found["scales"], {"scale": scale, **scores}], key=lambda row: row["scale"])
        self.found |= verdict(self.found["scales"])
        self.write()
        self.draw()

    def write(self) -> None:
        write_json(self.found, self.folder / "teacher.json")

    def draw(self) -> None:
        """Both pages."""
        shown, few = self.asked.shown(PAGE), self.asked.shown(FEW)
        best = self.images[self.found["best_scale"]]
        page = captioned(best[shown], [self.asked.prompts[row] for row in shown], COLUMNS)
        write_bytes(page, self.folder / "best.png")
        rows = {"real": self.asked.pixels[few]}
        rows |= {f"scale {scale:g}": self.images[scale][few] for scale in sorted(self.images)}
        write_bytes(named_rows(rows, [self.asked.prompts[row] for row in few]), self.folder / "scales.png")


def verdict(scales: list[dict[str, Any]]) -> dict[str, Any]:
    """The scale of least distance, and how it and the one of most right names compare with no guidance."""
    best = min(scales, key=lambda row: row["all"]["fd"]["value"])
    found: dict[str, Any] = {"best_scale": best["scale"]}
    if unguided := next((row for row in scales if row["scale"] == UNGUIDED), None):
        most = max(row["all"]["name_top1"]["value"] for row in scales)
        found["fd_over_unguided"] = best["all"]["fd"]["value"] / unguided["all"]["fd"]["value"]
        found["name_top1_gained"] = most - unguided["all"]["name_top1"]["value"]
    return found


def measured(sweep: Sweep, instruments: Instruments, pictures: EmojiImages) -> None:
    """What the judge makes of real pictures: those that it never saw, then those of the prompts."""
    judge = instruments.judge
    recipe = JudgeRecipe(held_out=read_json(judge.folder / ACCURACY)["images"])
    unseen = split_for_judge(pictures.of_styles(judge.words.styles.__contains__), recipe)[1]
    sweep.found["judge"] = {"images": len(unseen), **plain(judged(judge, unseen))}
    tell("judge, unseen pictures", sweep.found["judge"])
    sweep.found["real"] = instruments.scores(sweep.asked.pixels, sweep.asked)
    tell("real pictures", sweep.found["real"]["all"])
    sweep.write()


def run(sweep: Sweep, sampler: Sampler, instruments: Instruments, scales: list[float]) -> None:
    """Scale by scale."""
    for scale in scales:
        started = time.monotonic()
        samples = sampler.guided(scale)
        sampled = time.monotonic()
        scores = instruments.scores(samples.images, sweep.asked)
        times = {"sampling_seconds": sampled - started, "measuring_seconds": time.monotonic() - sampled}
        sweep.add(scale, samples.images, {**scores, **times})
        for split, numbers in scores.items():
            tell(f"scale {scale:g}, {split}", numbers)


def tell(what: str, numbers: Mapping[str, Any]) -> None:
    known = [f"{name} {numbers[name]['value']:.4f}" for name in TABLE if name in numbers]
    print(f"{time.monotonic() - _STARTED:6.1f} s  {what}: {', '.join(known)}", flush=True)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("judge", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--judge-only", action="store_true", help="leave EfficientNet-Lite0 out")
    parser.add_argument("--output", type=Path, default=Path("outputs/emoji-teacher"))
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    given = arguments(words)
    device, ends_at = pick_device(given.device), time.monotonic() + 60 * given.minutes
    pictures = drawn(given.pictures)
    asked = asked_of(pictures, given.images)
    model = open_model(given.model, device, given.precision)
    settings = {"images": len(asked), "held_out": int(asked.held_out.sum()), "steps": given.steps, "seed": SEED}
    where = {"device": describe_device(device), "precision": str(model.dtype), "torch": torch.__version__}
    given.output.mkdir(parents=True, exist_ok=True)
    sweep = Sweep(asked, given.output, {"settings": {**settings, **where}, "scales": []})
    instruments = Instruments.open(given.judge, pictures, device, given.judge_only)
    measured(sweep, instruments, pictures)
    sampler = Sampler.of(model, asked.prompts, given.steps, lambda: time.monotonic() > ends_at)
    try:
        run(sweep, sampler, instruments, given.scales)
    except Stopped as stop:
        print(f"out of time, {stop}")


if __name__ == "__main__":
    main()
