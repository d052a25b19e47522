"""How far a LoRA's weight is from guidance as a dial: its error against CFG at weights 0, 0.5, 1 and 1.5.

    OMP_NUM_THREADS=1 python -m benchmarks.lora_dial --output outputs/lora-dial [--adapter FOLDER ...]
        [--preset fashion-dit-lora] [--weights 0 0.5 1 1.5] [--images 300] [--set train.steps=700 ...]

Trains the preset's methods, or takes adapters of its base model; the first `lora` among them says at which guidance
scales all of them are measured: `1 + weight * (its own - 1)`. The error is the mean squared distance of final latents
to CFG's from the same noise and class or prompt, with two standard errors over images; the share is of the error that
the base model without guidance makes. Prints a table and writes lora_dial.json.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agd_core.basics.atomic import write_json
from agd_core.basics.errors import InputError
from agd_core.evaluation.metrics.standard_errors import NORMAL_95
from agd_core.evaluation.sampling import sample_images
from agd_core.methods import LoraConfig, MethodConfig, Trained
from agd_core.methods.adapter_files import open_adapter, read_card
from benchmarks.emoji_scores import relative_error
from flows.presets import load_config
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.distill import train_all
from flows.terminal import Terminal
from flows.workplace import Workplace, pick_device

WEIGHTS = (0.0, 0.5, 1.0, 1.5)
HEADER = (
    "| method | parameters | weight | scale | error against CFG | no guidance's error | share left |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


def own_scale(configs: Sequence[MethodConfig]) -> float:
    """The guidance scale of weight 1.

    Raises:
        InputError: there is no LoRA.
    """
    scales = [config.guidance_scale for config in configs if isinstance(config, LoraConfig)]
    if not scales:
        kinds = ", ".join(config.kind for config in configs)
        raise InputError(f"none of {kinds} is a lora, the method whose weight is a dial")
    return scales[0]


def open_methods(run: Run, given: Sequence[Path]) -> dict[str, Trained]:
    """The adapters of these folders, or those of the preset, trained; by their labels."""
    folders = given or [artefact.path for _, artefact in train_all(run, collect(run))]
    opened = [open_adapter(run.model, folder) for folder in folders]
    return {trained.config.label: trained for trained in opened}


def latents_of(run: Run, opened: Any, scale: float) -> Tensor:
    """Final latents of all images."""
    sample = run.config.sample
    with opened as denoiser:
        return sample_images(denoiser, run.sampled, sample.at(scale, sample.steps, sample.scheduler)).latents


def error_of(found: Tensor, guided: Tensor) -> dict[str, float]:
    """Mean squared distance, image by image, with its interval."""
    each = (found.double() - guided.double()).square().flatten(1).mean(1)
    value, margin = float(each.mean()), NORMAL_95 * float(each.std()) / len(each) ** 0.5
    return {"value": value, "low": value - margin, "high": value + margin}


def measure(run: Run, methods: Mapping[str, Trained], scales: Mapping[float, float]) -> list[dict[str, Any]]:
    """A row for every weight, to which a scale belongs, and method."""
    rows: list[dict[str, Any]] = []
    bare = latents_of(run, nullcontext(run.model), 1.0)
    for weight, scale in scales.items():
        guided = latents_of(run, nullcontext(run.teacher), scale)
        for name, trained in methods.items():
            found = latents_of(run, trained.installed(run.model), scale)
            row = {"name": name, "parameters": trained.parameter_count(), "weight": weight, "guidance_scale": scale}
            row |= {"error": error_of(found, guided), "unguided": error_of(bare, guided)}
            rows.append(row | {"share": relative_error(found, guided, bare) if weight else None})
            print(line(rows[-1]), flush=True)
    return rows


def line(row: Mapping[str, Any]) -> str:
    """One of the table's."""
    error, share = row["error"], row["share"]
    told = (
        "-"
        if share is None
        else f"{100 * share['value']:.1f} % ({100 * share['low']:.1f} to {100 * share['high']:.1f})"
    )
    return (
        f"| {row['name']} | {row['parameters']:,} | {row['weight']:g} | {row['guidance_scale']:g} | "
        f"{error['value']:.4f} ({error['low']:.4f} to {error['high']:.4f}) | {row['unguided']['value']:.4f} | {told} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, action="append", default=[], help="instead of training")
    parser.add_argument("--preset", default="fashion-dit-lora")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="as agd has it")
    given = parser.parse_args()
    config = load_config(given.preset, [f"sample.images={given.images}", *given.set])
    own = own_scale([read_card(folder)[0] for folder in given.adapter] or config.methods)
    with Terminal() as terminal:
        place = Workplace(given.output, pick_device(given.device), terminal.announce, terminal.progress)
        run = Run(config, place).check()
        methods = open_methods(run, given.adapter)
    sample, told = config.sample, {"preset": given.preset, "set": given.set, "images": given.images}
    print(f"torch {torch.__version__}, {sample.images} images, {sample.steps} {sample.scheduler} steps")
    print("\n".join(HEADER), flush=True)
    rows = measure(run, methods, {weight: 1 + weight * (own - 1) for weight in given.weights})
    write_json({**told, "rows": rows}, given.output / "lora_dial.json")


if __name__ == "__main__":
    try:
        main()
    except InputError as line:
        print(f"lora_dial: {line}", file=sys.stderr)
        sys.exit(2)
