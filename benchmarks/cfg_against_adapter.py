"""CFG and every kind of adapter against the bare network, on the built-in teacher: a sampler's time per image.

    OMP_NUM_THREADS=1 python -m benchmarks.cfg_against_adapter [--device cuda] [--rounds 9] [--batch 1 256] [--compile]

Sides take turns in one process; ratios are taken within a round, of processor time on the CPU (other jobs disturb it
less than wall time). What a sampler computes before its first step is in it, spread over its steps.
"""

import argparse
import time
from collections.abc import Mapping
from contextlib import ExitStack
from statistics import median

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from agd_core.data.subjects import Subjects
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.methods import CrossAttentionConfig, LoraConfig, MethodConfig, ModulatedMlpConfig, OffsetConfig
from agd_core.models.config import BaseModelConfig
from agd_core.models.denoiser import Denoiser
from agd_core.models.denoising import denoise
from agd_core.models.schedulers import build_scheduler
from flows.workplace import pick_device

STEPS = 20
BARE, CFG = "bare", "CFG"
METHODS: dict[str, MethodConfig] = {
    "modulated-mlp": ModulatedMlpConfig(),
    "cross-attention": CrossAttentionConfig(hidden_width=40, encoder="shared", scale_output=True),
    "offset": OffsetConfig(hidden_width=56, encoder="shared", scale_output=True),
    "lora": LoraConfig(rank=8),
}
"""With the demo's sizes: about 100,000 parameters each."""


class Side:
    """A denoiser on a model of its own, so that nothing of another side hangs on its network."""

    def __init__(self, name: str, device: torch.device, compiled: bool, opened: ExitStack) -> None:
        self.model = BaseModelConfig().build(device)
        self.denoiser: Denoiser = self.model
        if name == CFG:
            self.denoiser = GuidedDenoiser(self.model, ClassifierFreeGuidance())
        elif name != BARE:
            method = METHODS[name].build(self.model.backbone).to(device)
            self.denoiser = opened.enter_context(method.installed(self.model))
        if compiled:
            self.model.network.compile(fullgraph=True)

    def sample(self, batch: int) -> None:
        """One sampler call."""
        model = self.model
        scheduler = build_scheduler("ddim", model.scheduler_config, STEPS)
        ask = Subjects(model).ask([i % 10 for i in range(batch)], 2.0)
        denoise(self.denoiser, scheduler, ask, list(range(batch)), model.latent_shape)
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, batch: int) -> float:
        """Of one sampler call; the noise and the condition are in it, as they are for everybody."""
        clock = time.process_time if self.model.device.type == "cpu" else time.perf_counter
        started = clock()
        self.sample(batch)
        return clock() - started

    @torch.no_grad()
    def flops(self) -> int:
        """Of one image, in matrix products, convolutions and attention."""
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            self.sample(1)
        return int(counter.get_total_flops())


def print_rows(sides: Mapping[str, Side], by_flops: Mapping[str, float], batch: int, rounds: int) -> None:
    """Medians of every side, and of its ratios to the bare network and of CFG to it; a first round does not count."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name in list(sides)[:: 1 - 2 * (turn % 2)]:
            times[name].append(sides[name].seconds(batch))
    for name, (_, *mine) in times.items():
        over = median(one / bare for one, bare in zip(mine, times[BARE][1:], strict=True))
        gain = median(cfg / one for one, cfg in zip(mine, times[CFG][1:], strict=True))
        per_image = 1e3 * median(mine) / STEPS / batch
        print(f"| {batch} | {name} | {per_image:.3f} | {over:.3f} | {by_flops[name]:.3f} | {gain:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 256], help="images")
    parser.add_argument("--compile", action="store_true", help="the network, with what hangs on it")
    given = parser.parse_args()
    device = pick_device(given.device)
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {STEPS} DDIM steps")
    print("| batch | side | ms per image and step | side / bare | by FLOPs | CFG / side |")
    print("| --- | --- | --- | --- | --- | --- |")
    with ExitStack() as opened:
        counted = {name: Side(name, device, False, opened).flops() for name in (BARE, CFG, *METHODS)}
        sides = {name: Side(name, device, given.compile, opened) for name in counted}
        for batch in given.batch:
            print_rows(sides, {name: each / counted[BARE] for name, each in counted.items()}, batch, given.rounds)


if __name__ == "__main__":
    main()
