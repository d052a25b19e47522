"""How far one pass is from guidance with a LoRA, a ControlNet, an IP-Adapter and on a fine-tuned sibling.

python benchmarks/composition_drift.py [--adapter tiny-sd=FOLDER ...] [--calls 8] [--output outputs/composition]

On random-weight miniatures, whose images mean nothing: it shows that the parts compose, and what
`agd_core.measure_drift` says of each composition. Adapters that are not given are trained, minutes each on a CPU.
"""

import argparse
import copy
import statistics
import sys
import tempfile
from pathlib import Path

import diffusers
import torch

import agd_core
from agd_core.basics.errors import InputError
from agd_core.builtin.miniatures import miniature_folder
from agd_core.pipelines.drift import measure_drift
from flows.presets import load_config
from flows.prompts import load_prompts
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.distill import train_all
from flows.terminal import Terminal
from flows.workplace import Workplace, pick_device

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests import composition_parts as parts

CONTROLLED = {"tiny-sd": "StableDiffusionControlNetPipeline", "tiny-sdxl": "StableDiffusionXLControlNetPipeline"}
COMPOSITIONS = {
    "none": (),
    "LoRA": ("lora",),
    "ControlNet": ("controlnet",),
    "IP-Adapter": ("ip-adapter",),
    "all three": ("lora", "controlnet", "ip-adapter"),
    "sibling": ("sibling",),
    "sibling, LoRA": ("sibling", "lora"),
}
MINIATURES = {**dict.fromkeys(CONTROLLED, tuple(COMPOSITIONS)), "tiny-sd3": ("none", "LoRA", "sibling")}
PROMPTS, SCALE, STEPS = 4, 5.0, 10
TRAINING = (
    "methods=[{kind: agd-modulated-mlp, hidden_width: 32, bottleneck_width: 64}]",
    f"collect.prompt_count={PROMPTS}",
    "collect.trajectories=64",
    "collect.guidance_scale_min=4",
    "collect.guidance_scale_max=6",
    "train.steps=1500",
    "train.learning_rate=4.0e-3",
)


def trained(name, output):
    config = load_config(name, TRAINING)
    with Terminal() as terminal:
        place = Workplace(output / name, pick_device("cpu"), terminal.announce, terminal.progress)
        base_model = Run(config, place).check().model
        [(_, artefact)] = train_all(Run(config, place, base_model), collect(Run(config, place, base_model)))
    return artefact.path


class Kit:
    """A miniature's parts on disk, and pipelines made of them."""

    def __init__(self, name, adapter, folder):
        self.name, self.adapter, self.folder = name, adapter, folder
        self.stock = parts.load_stock(miniature_folder(name))
        self.sibling = parts.load_stock(parts.fine_tuned(miniature_folder(name), folder / "sibling"))
        parts.write_lora(folder / "lora", parts.network(self.stock))
        if name in CONTROLLED:
            parts.write_ip_adapter(folder / "ip", self.stock.unet)
            self.controlnet = parts.tiny_controlnet(self.stock.unet)

    def compose(self, chosen):
        """(pipeline, further arguments of its call)."""
        pipe, arguments = copy.deepcopy(self.sibling if "sibling" in chosen else self.stock), {}
        agd_core.load_adapter(pipe, self.adapter, allow_sibling="sibling" in chosen)
        if "lora" in chosen:
            pipe.load_lora_weights(self.folder / "lora")
        if "ip-adapter" in chosen:
            pipe.load_ip_adapter(self.folder / "ip", parts.IP_SUBFOLDER, parts.IP_WEIGHTS, image_encoder_folder=None)
            arguments["ip_adapter_image_embeds"] = parts.ip_image_embeds(True)
        if "controlnet" in chosen:
            pipe = getattr(diffusers, CONTROLLED[self.name]).from_pipe(pipe, controlnet=self.controlnet)
            pipe.set_progress_bar_config(disable=True)
            arguments["image"] = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
        return pipe, arguments


def drifts(pipe, arguments, calls):
    prompts = load_prompts("builtin:everyday-500", PROMPTS, "prompts")
    for number in range(calls):
        yield measure_drift(
            pipe,
            prompt=prompts[number % len(prompts)],
            generator=torch.Generator().manual_seed(1000 + number),
            guidance_scale=SCALE,
            num_inference_steps=STEPS,
            **arguments,
        )


def row(name, composition, kit, calls):
    found = list(drifts(*kit.compose(COMPOSITIONS[composition]), calls))
    relative = [drift.relative for drift in found]
    middle = f"{statistics.median(relative):.2f} | {min(relative):.2f} to {max(relative):.2f}"
    return f"| {name} | {composition} | {middle} | {found[0].student_nfe:g} | {found[0].teacher_nfe:g} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--adapter", action="append", default=[], metavar="MINIATURE=FOLDER")
    parser.add_argument("--miniatures", nargs="+", choices=MINIATURES, default=list(MINIATURES))
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("outputs/composition"))
    arguments = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in arguments.adapter)
    if unknown := given.keys() - MINIATURES.keys():
        raise InputError(f"--adapter: no miniature {', '.join(unknown)}; known: {', '.join(MINIATURES)}")
    diffusers.logging.set_verbosity_error()
    lines = ["| pipeline | attached | relative drift, median | range | NFE student | NFE teacher |", "|" + " --- |" * 6]
    for name in arguments.miniatures:
        with tempfile.TemporaryDirectory() as folder:
            kit = Kit(name, Path(given.get(name) or trained(name, arguments.output)), Path(folder))
            for composition in MINIATURES[name]:
                lines.append(row(name, composition, kit, arguments.calls))
                print(lines[-1], flush=True)
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
