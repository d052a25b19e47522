"""CFG against one adapter pass on the published models at full size: FLOPs without weights, seconds with random ones.

    python -m benchmarks.full_size_speed --flops
    OMP_NUM_THREADS=1 python -m benchmarks.full_size_speed --time --model dit-xl-2-256 [--latent 32] [--batch 1 4]
        [--adapters offset-256] [--rounds 5] [--device auto] [--dtype float32]

A step is one call of the network with what hangs on it, or with the combination of CFG's two halves; the sampler's
arithmetic, and what it computes once before its first step, are left out. FLOPs are those of matrix products,
convolutions and attention; a multiply-add is two. The timed sides take turns in one process; ratios are taken within a
round.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from agd_core.memory import Sized
from agd_core.memory.full_size import full_size_model, full_size_names
from agd_core.methods import CrossAttentionConfig, MethodConfig, ModulatedMlpConfig, OffsetConfig
from benchmarks.gpu.networks import META, Inputs, RandomModel, flops_of, sides, trained_of
from benchmarks.gpu.timing import WARM_UP, divided, machine, quartiles, time_sides
from flows.workplace import pick_device

ADAPTERS: dict[str, MethodConfig] = {
    "cross-attention-320": CrossAttentionConfig(hidden_width=320),
    "offset-256": OffsetConfig(hidden_width=256),
    "modulated-mlp-48": ModulatedMlpConfig(bottleneck_width=48),
}
"""The number is the width of what is inside; a step's cost depends on it in the modulated MLP alone."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StepFlops:
    """Floating-point operations of one step for one image."""

    bare: int
    cfg: int
    agd: int

    @property
    def ratio(self) -> float:
        """What CFG takes over what the adapter takes."""
        return self.cfg / self.agd


def step_flops(sized: Sized, configs: Mapping[str, MethodConfig]) -> dict[str, StepFlops]:
    """FLOPs of one image's step with each adapter, on the meta device."""
    model, inputs = RandomModel(sized, META), Inputs.random(sized, 1, META)
    methods = {name: trained_of(config, model) for name, config in configs.items()}
    counts = {name: flops_of(side) for name, side in sides(model, methods, inputs).items()}
    return {name: StepFlops(counts["bare"], counts["CFG"], counts[name]) for name in configs}


def print_flops(names: Sequence[str]) -> None:
    """A table of all adapters on each model at its own latent size."""
    print(f"FLOPs on the meta device, torch {torch.__version__}; GFLOP per image and step")
    print("| model | latent | adapter | bare | CFG | AGD | CFG / AGD |\n| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        sized = _sized(name, None, torch.float32)
        for adapter, flops in step_flops(sized, ADAPTERS).items():
            numbers = " | ".join(f"{count / 1e9:.2f}" for count in (flops.bare, flops.cfg, flops.agd))
            print(f"| {name} | {sized.latent_side} | {adapter} | {numbers} | {flops.ratio:.3f} |", flush=True)


def _sized(name: str, latent: int | None, dtype: torch.dtype) -> Sized:
    model = full_size_model(name)
    return Sized(model, latent or int(model.network_config["sample_size"]), dtype)


def print_times(sized: Sized, adapters: Sequence[str], batches: Sequence[int], rounds: int, device: Any) -> None:
    """A table of all sides at every batch; each adapter hangs on the network during its own turns only."""
    flops = step_flops(sized, {name: ADAPTERS[name] for name in adapters})
    model = RandomModel(sized, device)
    methods = {name: trained_of(ADAPTERS[name], model) for name in adapters}
    print(
        f"{model.backbone.parameters} parameters, random weights; {rounds} rounds after {WARM_UP} that does not count"
    )
    print("| batch | adapter | bare, s | CFG, s | AGD, s | CFG / AGD (quartiles) | by FLOPs | AGD / bare (quartiles) |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for batch in batches:
        times = time_sides(sides(model, methods, Inputs.random(sized, batch, device)), rounds, device)
        for name in adapters:
            print(f"| {batch} | {name} | {_row(times, name, flops[name].ratio)} |", flush=True)


def _row(times: Mapping[str, Sequence[float]], name: str, by_flops: float) -> str:
    seconds = " | ".join(f"{statistics.median(times[side]):.3f}" for side in ("bare", "CFG", name))
    gained, lost = divided(times["CFG"], times[name]), divided(times[name], times["bare"])
    return f"{seconds} | {quartiles(gained)} | {by_flops:.3f} | {quartiles(lost)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--flops", action="store_true")
    wanted.add_argument("--time", action="store_true")
    parser.add_argument("--model", choices=full_size_names(), help="default: all with --flops, DiT-XL/2 with --time")
    parser.add_argument("--adapters", nargs="+", choices=ADAPTERS, default=["cross-attention-320"])
    parser.add_argument("--latent", type=int, help="side; default: the model's own")
    parser.add_argument("--batch", type=int, nargs="+", default=[1], help="images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    given = parser.parse_args()
    if given.flops:
        return print_flops([given.model] if given.model else full_size_names())
    device, name = pick_device(given.device), given.model or "dit-xl-2-256"
    sized = _sized(name, given.latent, DTYPES[given.dtype])
    print(
        f"{name}, latents {sized.latent_side} x {sized.latent_side}, {given.dtype}, {device}: {machine(device)}, ",
        end="",
    )
    print(f"torch {torch.__version__}")
    print_times(sized, given.adapters, given.batch, given.rounds, device)


if __name__ == "__main__":
    main()
