"""The base's adapter among the emoji world's relatives: drift, distance, alignment, against each one's own CFG.

python -m benchmarks.emoji_composition MODEL RELATIVES ADAPTER JUDGE PICTURES [--images 1000] [--steps 50] [--scale 3]
    [--only emoji-sd-lora ...] [--output FOLDER]

RELATIVES holds the folders that `agd pretrain emoji-sd-RELATIVE` left; those that are missing are left out. ADAPTER is
one of the base. Every composition is a stock pipeline that makes the same images three times from the same noise: with
the adapter in one pass, with CFG, and without guidance. Distances are to the pictures that it should make: a sibling's
own, ink drawings for the LoRA. A relative whose CFG is no better than no guidance proves nothing. The relative error
over all images is what `agd_core.measure_drift` computes, which is asked on the first ones too.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from jaxtyping import Float
from torch import Tensor

import agd_core
from agd_core.basics.atomic import write_bytes, write_json
from agd_core.basics.seeding import derive_seed, generator, stacked_noise
from agd_core.evaluation.sampling import to_bytes
from agd_core.pipelines.drift import measure_drift
from agd_core.pretraining.emoji.images import EmojiImages
from benchmarks.emoji_compositions import BASE, NAMES, Composition, Task, compose, task_of
from benchmarks.emoji_pages import named_rows
from benchmarks.emoji_scores import Found, Instruments, relative_error
from benchmarks.emoji_sets import SEED, drawn
from flows.workplace import describe_device, pick_device

UNGUIDED, CFG, ADAPTER = "no guidance", "CFG", "adapter"
HIGHER, LOWER = ("clip_score", "name_top1", "style_top1"), ("fd",)
FEW = 12


@dataclass(frozen=True)
class Calls:
    """The pipeline's calls of one composition, from one noise."""

    composition: Composition
    task: Task
    scale: float
    steps: int
    together: int
    drift_images: int

    def latents(self, way: str) -> Float[Tensor, "images channels height width"]:
        """Final latents of all images, by one of three ways."""
        agd_core.set_enabled(self.composition.pipe, way == ADAPTER)
        count = len(self.task.asked)
        parts = [slice(i, min(i + self.together, count)) for i in range(0, count, self.together)]
        changes = {"guidance_scale": 1.0 if way == UNGUIDED else self.scale, "output_type": "latent"}
        made = [self.composition.pipe(**self.call(rows, way == CFG), **changes).images for rows in parts]
        return torch.cat(made).float().cpu()

    def call(self, rows: slice, guided: bool) -> dict[str, Any]:
        """What a call is told, whatever its scale."""
        pipe = self.composition.pipe
        side, channels = pipe.unet.config.sample_size, pipe.unet.config.in_channels
        seeds = [derive_seed(SEED, "sample", row) for row in range(rows.start, rows.stop)]
        noise = stacked_noise([generator(seed, "noise") for seed in seeds], (channels, side, side))
        return {
            "prompt": list(self.task.asked.prompts[rows]),
            "latents": noise.to(pipe.unet.device, pipe.unet.dtype),
            "num_inference_steps": self.steps,
            **self.composition.told(rows, guided),
        }

    def drift(self) -> dict[str, Any]:
        """`measure_drift` of the first images."""
        agd_core.set_enabled(self.composition.pipe, True)
        first = slice(0, min(self.drift_images, len(self.task.asked)))
        found = measure_drift(self.composition.pipe, **self.call(first, True), guidance_scale=self.scale)
        return {"images": first.stop, **found.as_dict()}


@torch.no_grad()
def decoded(pipe: Any, latents: Tensor) -> Tensor:
    """Images uint8 `[images, height, width, 3]`, decoded in float32."""
    vae = pipe.vae.float()
    parts = torch.split(latents / vae.config.scaling_factor, 100)
    return torch.cat([to_bytes(vae.decode(part.to(vae.device)).sample.clamp(-1, 1)).cpu() for part in parts])


def measured(calls: Calls, instruments: Instruments) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """All numbers of a composition, and its images by the way they were made."""
    latents = {way: calls.latents(way) for way in (UNGUIDED, CFG, ADAPTER)}
    images = {way: decoded(calls.composition.pipe, each) for way, each in latents.items()}
    looking = instruments.against(calls.task.real)
    asked = calls.task.asked.worded(calls.task.words)
    scores = {way: looking.scores(each, asked) for way, each in images.items()}
    found = {
        "images": len(asked),
        "relative_error": relative_error(latents[ADAPTER], latents[CFG], latents[UNGUIDED]),
        "scores": scores,
        "adapter_fd_over_cfg": _value(scores[ADAPTER], "fd") / _value(scores[CFG], "fd"),
        "cfg_is_better_in": [name for name in (*HIGHER, *LOWER) if _is_better(scores, name)],
    }
    return found, images


def _is_better(scores: dict[str, Found], name: str) -> bool:
    gained = _value(scores[CFG], name) - _value(scores[UNGUIDED], name)
    return gained < 0 if name in LOWER else gained > 0


def _value(scores: Found, name: str) -> float:
    value: float = scores["all"][name]["value"]
    return value


def run(given: argparse.Namespace, pictures: EmojiImages, instruments: Instruments) -> None:
    """Composition by composition; what was measured is written at once."""
    device = describe_device(instruments.judge.device)
    settings = {"scale": given.scale, "steps": given.steps, "seed": SEED, "device": device}
    found: dict[str, Any] = {"settings": settings, "compositions": {}}
    for name in given.only:
        if name != BASE and not (given.relatives / name).is_dir():
            print(f"{name}: left out, {given.relatives / name} is not there", flush=True)
            continue
        started = time.monotonic()
        calls = opened(name, given, pictures, instruments.judge.device)
        numbers, images = measured(calls, instruments)
        numbers |= {"drift": calls.drift(), "seconds": time.monotonic() - started}
        found["compositions"][name] = numbers
        write_json(found, given.output / "composition.json")
        draw(calls.task, images, given.output / f"{name}.png")
        tell(name, numbers)


def opened(name: str, given: argparse.Namespace, pictures: EmojiImages, device: torch.device) -> Calls:
    """A composition with the adapter in it, and what it is asked for."""
    task = task_of(name, pictures, given.images)
    composition = compose(name, given.model, given.relatives, task.asked.pixels, device)
    agd_core.load_adapter(composition.pipe, given.adapter, allow_sibling=True)
    together = 500 if device.type == "cuda" else 50
    return Calls(composition, task, given.scale, given.steps, together, given.drift_images)


def draw(task: Task, images: dict[str, Tensor], path: Path) -> None:
    few = task.asked.shown(FEW)
    rows = {"real": task.asked.pixels[few], **{way: each[few] for way, each in images.items()}}
    write_bytes(named_rows(rows, [task.asked.prompts[row] for row in few]), path)


def tell(name: str, numbers: dict[str, Any]) -> None:
    error, drift = numbers["relative_error"], numbers["drift"]["relative"]
    print(f"{name}: relative error {error['value']:.3f} ({error['low']:.3f} to {error['high']:.3f}), drift {drift:.3f}")
    for way, scores in numbers["scores"].items():
        told = [f"{key} {scores['all'][key]['value']:.4f}" for key in (*HIGHER, *LOWER) if key in scores["all"]]
        print(f"  {way}: {', '.join(told)}", flush=True)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "relatives", "adapter", "judge", "pictures"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--drift-images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scale", type=float, default=3.0)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=Path("outputs/emoji-composition"))
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    given = arguments(words)
    diffusers.logging.set_verbosity_error()
    given.output.mkdir(parents=True, exist_ok=True)
    pictures = drawn(given.pictures)
    run(given, pictures, Instruments.open(given.judge, pictures, pick_device(given.device), judge_only=True))


if __name__ == "__main__":
    main()
