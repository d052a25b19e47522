"""CFG against one adapter pass on the published models at full size: FLOPs without weights, seconds with random ones.

    python benchmarks/full_size_speed.py --flops
    OMP_NUM_THREADS=1 python benchmarks/full_size_speed.py --time --model dit-xl-2-256 [--latent 32] [--batch 1 4]
        [--adapters offset-256] [--rounds 5] [--device auto] [--dtype float32]

A step is one call of the network, with the encoding of the adapter's inputs or the combination of CFG's two halves; the
sampler's arithmetic is left out. FLOPs are those of matrix products, convolutions and attention; a multiply-add is two.
The timed sides take turns in one process; ratios are taken within a round.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from agd_core.basics.errors import InputError
from agd_core.guidance import ClassifierFreeGuidance, GuidanceCall
from agd_core.memory import Sized
from agd_core.memory.full_size import full_size_model, full_size_names
from agd_core.methods import CrossAttentionConfig, MethodConfig, OffsetConfig
from agd_core.methods.attached import Attached, GuidedCall
from agd_core.models.ask import Ask
from agd_core.models.backbones import Backbone, backbone_of
from agd_core.models.condition import Condition
from flows.workplace import pick_device

ADAPTERS: dict[str, MethodConfig] = {
    "cross-attention-320": CrossAttentionConfig(hidden_width=320),
    "cross-attention-256": CrossAttentionConfig(hidden_width=256),
    "cross-attention-128": CrossAttentionConfig(hidden_width=128),
    "cross-attention-320-shared": CrossAttentionConfig(hidden_width=320, encoder="shared"),
    "offset-320": OffsetConfig(hidden_width=320),
    "offset-256": OffsetConfig(hidden_width=256),
    "offset-128": OffsetConfig(hidden_width=128),
    "offset-256-shared": OffsetConfig(hidden_width=256, encoder="shared"),
}
"""One encoder per layer where "shared" is not said."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MIDDLE = 500.0
"""The timestep of every call."""
SCALE = 4.0
STD = 0.02
"""Of random weights: small enough that numbers stay finite through all layers."""
WARM_UP = 1

Step = Callable[[], Tensor]


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


@dataclass(frozen=True)
class Inputs:
    """What a step is called with."""

    latents: Tensor
    timestep: Tensor
    condition: Condition
    guidance_scale: Tensor

    @classmethod
    def random(cls, sized: Sized, rows: int, device: torch.device) -> "Inputs":
        """Seeded noise, class 0 or a prompt of noise."""
        draw = torch.Generator().manual_seed(rows) if device.type != "meta" else None
        with torch.device("cpu" if draw else "meta"):
            latents, condition, ones = sized.latents(rows), sized.conditions(rows), torch.ones(rows)
        for tensor in (latents, *condition.tensors().values()) if draw else ():
            _ = tensor.normal_(generator=draw) if tensor.is_floating_point() else tensor.zero_()
        ones = ones.to(device)
        return cls(latents.to(device), ones * MIDDLE, condition.to(device), ones * SCALE)


def bare_step(backbone: Backbone, inputs: Inputs) -> Tensor:
    """The network alone, one row per image."""
    return backbone.call(inputs.latents, inputs.timestep, inputs.condition)


def cfg_step(backbone: Backbone, inputs: Inputs) -> Tensor:
    """Two rows per image in one batch, then the formula; a null condition would cost what the same condition costs."""
    both = Condition.cat([inputs.condition, inputs.condition])
    output = backbone.call(torch.cat([inputs.latents, inputs.latents]), inputs.timestep.repeat(2), both)
    answers = dict(zip(("conditional", "unconditional"), output.chunk(2), strict=True))
    return ClassifierFreeGuidance().combine(answers, GuidanceCall(inputs.guidance_scale, inputs.timestep, {}))


def agd_step(backbone: Backbone, attached: Attached, inputs: Inputs) -> Tensor:
    """One row per image with the adapter, its inputs read and encoded as a student does."""
    ask = Ask(inputs.condition, inputs.condition, inputs.guidance_scale)
    with attached.during(GuidedCall(backbone, inputs.timestep, ask)):
        return bare_step(backbone, inputs)


@contextmanager
def attached_to(backbone: Backbone, config: MethodConfig, device: torch.device) -> Iterator[Attached]:
    """An adapter of random weights on the network, for the block."""
    with torch.device("meta"):
        adapter = config.build(backbone)
    attached = materialised(adapter, device).attach(backbone.network)
    try:
        yield attached
    finally:
        attached.detach()


def materialised(module: Any, device: torch.device) -> Any:
    """A module of the meta device on this one: matrices and tables drawn, norms' scales 1, biases 0."""
    if device.type == "meta":
        return module
    module = module.to_empty(device=device).requires_grad_(False).eval()
    draw = torch.Generator(device).manual_seed(0)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        _ = tensor.normal_(std=STD, generator=draw) if tensor.ndim > 1 else tensor.fill_(name.endswith("weight"))
    return module


def step_flops(sized: Sized, configs: Mapping[str, MethodConfig]) -> dict[str, StepFlops]:
    """FLOPs of one image's step with each adapter, on the meta device.

    Attention is counted in its plain form; the fused kernels make the same products.
    """
    meta = torch.device("meta")
    backbone, inputs = backbone_of(sized.network()), Inputs.random(sized, 1, meta)
    bare = _count(lambda: bare_step(backbone, inputs))
    cfg = _count(lambda: cfg_step(backbone, inputs))
    found: dict[str, StepFlops] = {}
    for name, config in configs.items():
        with attached_to(backbone, config, meta) as attached:
            found[name] = StepFlops(bare, cfg, _count(partial(agd_step, backbone, attached, inputs)))
    return found


@torch.no_grad()
def _count(step: Step) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


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


def seconds_on_cpu(step: Step) -> float:
    """Wall time of one step."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def seconds_on_cuda(step: Step) -> float:
    """The device's time for one step, between two events."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


CLOCKS: dict[str, Callable[[Step], float]] = {"cpu": seconds_on_cpu, "cuda": seconds_on_cuda}


@torch.no_grad()
def time_sides(sides: Mapping[str, Step], rounds: int, clock: Callable[[Step], float]) -> dict[str, list[float]]:
    """Seconds of every side in every round; every second round runs backwards, against drift.

    Raises:
        InputError: a side's numbers do not stay finite.
    """
    for name, step in sides.items():
        for _ in range(WARM_UP):
            if not step().isfinite().all():
                raise InputError(f"{name}: the output is not finite; random weights are too large for this precision")
    times: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(rounds):
        for name in list(sides)[:: 1 - 2 * (index % 2)]:
            times[name].append(clock(sides[name]))
    return times


def quartiles(ratios: Sequence[float]) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def divided(top: Sequence[float], bottom: Sequence[float]) -> list[float]:
    """The ratio of every round."""
    return [one / other for one, other in zip(top, bottom, strict=True)]


def print_times(sized: Sized, adapters: Sequence[str], batches: Sequence[int], rounds: int, device: Any) -> None:
    """A table of all sides at every batch; each adapter hangs on the network during its own steps only."""
    flops = step_flops(sized, {name: ADAPTERS[name] for name in adapters})
    backbone = backbone_of(materialised(sized.network(), device))
    print(f"{backbone.parameters} parameters, random weights; {rounds} rounds after {WARM_UP} that does not count")
    print("| batch | adapter | bare, s | CFG, s | AGD, s | CFG / AGD (quartiles) | by FLOPs | AGD / bare (quartiles) |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for batch in batches:
        inputs = Inputs.random(sized, batch, device)
        for name in adapters:
            with attached_to(backbone, ADAPTERS[name], device) as attached:
                sides = _sides(backbone, attached, inputs)
                times = time_sides(sides, rounds, CLOCKS[device.type])
            print(f"| {batch} | {name} | {_row(times, flops[name].ratio)} |", flush=True)


def _sides(backbone: Backbone, attached: Attached, inputs: Inputs) -> dict[str, Step]:
    return {
        "bare": lambda: bare_step(backbone, inputs),
        "cfg": lambda: cfg_step(backbone, inputs),
        "agd": lambda: agd_step(backbone, attached, inputs),
    }


def _row(times: Mapping[str, Sequence[float]], by_flops: float) -> str:
    seconds = " | ".join(f"{statistics.median(taken):.3f}" for taken in times.values())
    gained, lost = divided(times["cfg"], times["agd"]), divided(times["agd"], times["bare"])
    return f"{seconds} | {quartiles(gained)} | {by_flops:.3f} | {quartiles(lost)}"


def hardware(device: torch.device) -> str:
    """What the times are of."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{named[0] if named else platform.machine()}, {torch.get_num_threads()} threads of {len(named)} CPUs"


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
        f"{name}, latents {sized.latent_side} x {sized.latent_side}, {given.dtype}, {device}: {hardware(device)}, ",
        end="",
    )
    print(f"torch {torch.__version__}")
    print_times(sized, given.adapters, given.batch, given.rounds, device)


if __name__ == "__main__":
    main()
