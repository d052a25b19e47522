"""How far the memory estimate is from real runs on this machine's CPU: `python -m benchmarks.memory_estimate`.

Every case runs in a process of its own, with random weights in float32: one step to make Adam's moments, then one
forward, backward and Adam step while (a) every storage is followed and, in a second process, (b) the kernel keeps the
resident memory's peak. The estimate is made for the CPU: no rounding to CUDA's 512 bytes.
"""

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from agd_core.memory import GIB, Sized, sampling_memory, training_memory
from agd_core.memory.full_size import full_size_model
from agd_core.memory.peak_memory import LivingTensors
from agd_core.methods import CrossAttentionConfig, MethodConfig, OffsetConfig
from agd_core.methods.attached import GuidedCall
from agd_core.models.ask import Ask
from agd_core.models.backbones import backbone_of
from agd_core.models.condition import Condition

_BAR_PERCENT = 15.0


@dataclass(frozen=True)
class Case:
    model: str
    pixels: int
    batch: int
    work: str = "train"
    """train, train with activation checkpointing ("train-checkpointed"), or "sample"."""
    adapter: str = "agd-cross-attention"

    @property
    def sized(self) -> Sized:
        model = full_size_model(self.model)
        return Sized(model, self.pixels // model.latent_factor, on_cuda=False)

    @property
    def method(self) -> MethodConfig:
        return CrossAttentionConfig() if self.adapter == "agd-cross-attention" else OffsetConfig()


CASES = (
    Case("dit-xl-2-256", 256, 1),
    Case("sd15", 256, 1),
    Case("sd15", 256, 1, "train-checkpointed"),
    Case("dit-xl-2-256", 256, 4, "train-checkpointed", "agd-offset"),
    Case("sd15", 512, 1, "sample"),
    Case("dit-xl-2-256", 256, 4),
    Case("sd15", 512, 1, "train-checkpointed"),
    Case("sd15", 512, 1),
)


def estimated(case: Case) -> int:
    if case.work == "sample":
        return sampling_memory(case.sized, case.batch, None, case.method).peak_bytes
    checkpointed = case.work == "train-checkpointed"
    return training_memory(case.sized, case.method, case.batch, activation_checkpointing=checkpointed).peak_bytes


class Real:
    """The case with real tensors."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.case = case
        self.network: Any = full_size_model(case.model).network().to_empty(device="cpu")
        for tensor in (*self.network.parameters(), *self.network.buffers()):
            tensor.uniform_(-0.03, 0.03)
        self.backbone = backbone_of(self.network)
        self.adapter = case.method.build(self.backbone)
        self.attached = self.adapter.attach(self.network)
        self.optimizer = torch.optim.Adam(self.adapter.parameters(), lr=1e-4, fused=True)
        if case.work == "train-checkpointed":
            self.network.enable_gradient_checkpointing(self.attached.checkpointed)
        shapes = case.sized.conditions(case.batch).tensors()
        self.condition = Condition(**{name: _random(tensor) for name, tensor in shapes.items()})

    def resting(self) -> list[torch.Tensor]:
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        weights = [t for module in (self.network, self.adapter) for t in (*module.parameters(), *module.buffers())]
        return [*weights, *moments, *self.condition.tensors().values()]

    def step(self) -> None:
        rows = self.case.batch
        pairs, middle = _random(self.case.sized.latents(rows, 2)), torch.full((rows,), 500.0)
        backbone = self.backbone
        call = GuidedCall(backbone, middle, Ask(self.condition, self.condition, middle))
        self.optimizer.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(self.case.work != "sample"), self.attached.during(call):
            prediction = self.case.sized.kept(backbone.call(pairs[:, 0], middle, self.condition))
        if self.case.work != "sample":
            nn.functional.mse_loss(prediction, pairs[:, 1]).backward()
            self.optimizer.step()

    def living_peak(self) -> int:
        self._warm_up()
        with LivingTensors() as living:
            living.name(self.resting(), "resting")
            self.step()
        return living.peak

    def resident_peak(self, before: int) -> int:
        """Growth of the process's resident memory since before the network was made, at its peak in one step."""
        self._warm_up()
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        self.step()
        return _status("VmHWM") - before

    def _warm_up(self) -> None:
        if self.case.work != "sample":
            torch.stack([p.sum() for p in self.adapter.parameters()]).sum().backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)


def measure(case: Case, what: str) -> int:
    """In this process."""
    if what == "estimated":
        return estimated(case)
    _touch_libraries()
    before = _status("VmRSS")
    real = Real(case)
    return real.living_peak() if what == "living" else real.resident_peak(before)


def in_a_process(case: Case, what: str) -> int:
    command = [sys.executable, "-m", "benchmarks.memory_estimate", what, json.dumps(asdict(case))]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


def _touch_libraries() -> None:
    """Load what the step loads, so that code is not taken for tensors."""
    import diffusers

    network = diffusers.UNet2DConditionModel.from_config(
        {"block_out_channels": [32, 32, 32, 32], "cross_attention_dim": 8, "attention_head_dim": 8}
    )
    network(torch.zeros(1, 4, 16, 16), torch.zeros(1), torch.zeros(1, 4, 8)).sample.sum().backward()


def _random(like: torch.Tensor) -> torch.Tensor:
    return torch.randn(like.shape) if like.is_floating_point() else torch.zeros(like.shape, dtype=like.dtype)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}")
    print("| model | pixels | batch | work | adapter | estimate, GiB | living tensors | resident memory |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    worst = 0.0
    for case in CASES:
        guess, living, resident = (in_a_process(case, what) for what in ("estimated", "living", "resident"))
        errors = [100 * (guess / real - 1) for real in (living, resident)]
        worst = max(worst, *map(abs, errors))
        shown = [f"{real / GIB:.3f} ({error:+.1f} %)" for real, error in zip((living, resident), errors, strict=True)]
        row = [case.model, case.pixels, case.batch, case.work, case.adapter, f"{guess / GIB:.3f}", *shown]
        print("|", " | ".join(map(str, row)), "|", flush=True)
    print(f"largest error {worst:.1f} %, bar {_BAR_PERCENT:g} %")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(measure(Case(**json.loads(sys.argv[2])), sys.argv[1]))
    else:
        main()
