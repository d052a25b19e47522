"""Real trainings, the trainer's own, on networks of random weights."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from agd_core.basics.checkpoint import Checkpoint
from agd_core.data.records import TrajectoryReader
from agd_core.memory import GIB, Sized
from agd_core.memory.peak_memory import LivingTensors
from agd_core.methods import MethodConfig
from agd_core.methods.trainer import TrainConfig, Training
from benchmarks.gpu.networks import RandomModel, free

_NEVER_SECONDS = 1e6
AfterStep = Callable[[int], None]
"""Told how many steps are done."""


@contextmanager
def tensor_cores(allowed: bool = True) -> Iterator[None]:
    """float32 products in TF32 for the block, as the authors train."""
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions


def training_of(
    sized: Sized, method: MethodConfig, config: TrainConfig, reader: TrajectoryReader, device: torch.device
) -> Training:
    """A training that can be run: a model of random weights and the method before its first step."""
    model = RandomModel(sized, device)
    return Training(model, method.build(model.backbone), reader, config)


def trained(training: Training, after_step: AfterStep = lambda step: None) -> None:
    """Run a training from its first step to its last; no checkpoint is written on the way."""
    config = training.config.model_copy(update={"checkpoint_seconds": _NEVER_SECONDS})
    with tempfile.TemporaryDirectory() as folder:
        run = Training(training.model, training.trained, training.reader, config)
        run.run(Checkpoint(Path(folder) / "none.safetensors", "benchmark"), lambda done, of, text="": after_step(done))


@dataclass(frozen=True)
class Peak:
    """The most bytes at a time."""

    allocated: int
    """Handed out by the allocator, or of living tensors on the CPU."""
    reserved: int
    """Taken from the device; on the CPU the same."""


@contextmanager
def capped(gib: float, device: torch.device) -> Iterator[None]:
    """A CUDA device of no more than this, for the block; the CPU has no cap."""
    if device.type != "cuda":
        yield
        return
    number = torch.cuda.current_device() if device.index is None else device.index
    whole = torch.cuda.get_device_properties(number).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / whole), number)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, number)


def peak_of(make: Callable[[], Training], device: torch.device) -> Peak:
    """Of a whole training, from the making of its network on.

    Raises:
        OutOfMemoryError: the device does not have it.
    """
    free(device)
    if device.type != "cuda":
        return _peak_of_tensors(make())
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    trained(make())
    torch.cuda.synchronize(device)
    return Peak(torch.cuda.max_memory_allocated(device) - before, torch.cuda.max_memory_reserved(device))


def _peak_of_tensors(training: Training) -> Peak:
    with LivingTensors() as living:
        for module in (training.model.network, training.trained):
            living.name((*module.parameters(), *module.buffers()), "weights")
        trained(training)
    return Peak(living.peak, living.peak)
