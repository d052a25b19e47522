"""Time per image of CFG against one adapter pass, on the built-in teacher: alternating rounds in one process, medians.

python benchmarks/cfg_against_adapter.py [--device cuda] [--rounds 7]
"""

import argparse
import statistics
import time
from contextlib import ExitStack

import torch

from agd_core.data.subjects import Subjects
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.methods import CrossAttentionConfig, ModulatedMlpConfig, OffsetConfig
from agd_core.models.config import BaseModelConfig
from agd_core.models.denoising import denoise
from agd_core.models.schedulers import build_scheduler
from flows.workplace import pick_device

STEPS = 10
ADAPTERS = {
    "modulated MLP": ModulatedMlpConfig(),
    "cross-attention": CrossAttentionConfig(hidden_width=40, encoder="shared", scale_output=True),
    "offset": OffsetConfig(hidden_width=56, encoder="shared", scale_output=True),
}


def denoisers(base_model, opened):
    sides = {"no guidance": base_model, "CFG": GuidedDenoiser(base_model, ClassifierFreeGuidance())}
    for name, config in ADAPTERS.items():
        sides[name] = opened.enter_context(config.build(base_model.backbone).installed(base_model))
    return sides


def seconds_per_image(denoiser, base_model, batch):
    scheduler = build_scheduler("ddim", base_model.scheduler_config, STEPS)
    ask = Subjects(base_model).ask([i % 10 for i in range(batch)], 2.0)
    started = time.perf_counter()
    denoise(denoiser, scheduler, ask, list(range(batch)), base_model.latent_shape)
    if base_model.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / batch


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    base_model = BaseModelConfig().build(pick_device(arguments.device))
    print(
        f"device {base_model.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, {STEPS} DDIM steps"
    )
    sides = denoisers(base_model, ExitStack())
    for batch in (1, 256):
        times = {name: [] for name in sides}
        for _ in range(arguments.rounds + 1):
            for name, denoiser in sides.items():
                times[name].append(seconds_per_image(denoiser, base_model, batch))
        guided = statistics.median(times["CFG"][1:])
        for name, measured in times.items():
            median = statistics.median(measured[1:])
            print(
                f"batch {batch:3}  {name:16} {1000 * median:8.3f} ms/image   CFG time / this time {guided / median:.2f}"
            )


if __name__ == "__main__":
    main()
