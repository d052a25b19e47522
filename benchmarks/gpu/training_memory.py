"""Job: what training takes of a card of 24 GB, against what `agd doctor` predicts without one.

A real training under a cap, its peak, then the largest batch that the cap lets through. The prediction is that of
`agd_core.memory` with the preset's own settings; the CUDA context and kernels' workspaces are in neither number.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import torch

from agd_core.memory import GIB, Sized, largest_batch, training_memory
from benchmarks.gpu.networks import sized_of
from benchmarks.gpu.place import Place
from benchmarks.gpu.presets import first_method
from benchmarks.gpu.stored_pairs import RandomPairs
from benchmarks.gpu.trainings import Peak, capped, peak_of, tensor_cores, training_of
from flows.config import PipelineConfig
from flows.presets import load_config

PEAKS, PREDICTED = "1 peak of training", "2 peak of training, as predicted"
BATCHES, PREDICTED_BATCHES = "3 largest batch", "4 largest batch, as predicted"
CAP_GIB = 23.5
"""Of a card of 24 GB, what a process gets."""
_WHOLE, _CHECKPOINTED = "train.activation_checkpointing=false", "train.activation_checkpointing=true"
_CASES = (
    ("sdxl", _CHECKPOINTED),
    ("sdxl", _WHOLE),
    ("dit-xl-2-256", _CHECKPOINTED),
    ("sd21", _CHECKPOINTED),
    ("dit-xl-2-256", _WHOLE),
)
"""SDXL at batch 1, DiT-XL/2 at batch 64 and SD2.1 at batch 8, as the presets and the paper have them."""
_TOY_CASES = ("tiny-dit", _CHECKPOINTED), ("tiny-dit", _WHOLE)
_STEPS, _TRY_STEPS, _TOY_STEPS = 20, 3, 2
_TOY_BATCH = 3
"""At toy size the cap is what this batch is predicted to take."""


def run(place: Place) -> None:
    """What needs the device first; a prediction takes as long as a training, and any computer makes the same one."""
    cases = [_Case(place, *case) for case in (_TOY_CASES if place.toy else _CASES)]
    with tensor_cores(), capped(CAP_GIB, torch.device(place.device_name)):
        for work in (_Case.write_peak, _Case.write_prediction, _Case.write_largest, _Case.write_predicted_largest):
            for case in cases:
                with place.part(model=case.name, work=work.__name__.removeprefix("write_")):
                    work(case)


@dataclass(frozen=True)
class _Case:
    """One model with or without its activations kept."""

    place: Place
    name: str
    checkpointing: str

    @cached_property
    def config(self) -> PipelineConfig:
        return load_config(self.name, [self.checkpointing])

    @cached_property
    def device(self) -> torch.device:
        return torch.device(self.place.device_name)

    @cached_property
    def sized(self) -> Sized:
        return sized_of(self.config, self.device)

    @cached_property
    def cap(self) -> int:
        """Bytes."""
        return self.predicted(_TOY_BATCH) if self.place.toy else round(CAP_GIB * GIB)

    def write_peak(self) -> None:
        """The peak of the preset's own batch."""
        peak = self.peak
        gib = ("out of memory", None) if peak is None else (peak.allocated / GIB, peak.reserved / GIB)
        self._row(PEAKS, {"batch": self.batch, "allocated, GiB": gib[0], "reserved, GiB": gib[1]})

    def write_prediction(self) -> None:
        """The same, predicted; the error is of what was allocated."""
        predicted, peak = self.predicted(self.batch), self.peak
        error = None if peak is None else 100 * (predicted / peak.allocated - 1)
        self._row(PREDICTED, {"batch": self.batch, "predicted, GiB": predicted / GIB, "error, %": error})

    def write_largest(self) -> None:
        """The largest batch that the cap lets through."""
        found = largest_batch(cache(self._tried), self.cap, known=self.batch)
        self._row(BATCHES, {"cap, GiB": self.cap / GIB, "found": found})

    def write_predicted_largest(self) -> None:
        """The same, predicted."""
        predicted = largest_batch(cache(self.predicted), self.cap, known=self.batch)
        self._row(PREDICTED_BATCHES, {"cap, GiB": self.cap / GIB, "predicted": predicted})

    @property
    def batch(self) -> int:
        """The preset's own."""
        return self.config.train.batch_size

    @cached_property
    def peak(self) -> Peak | None:
        """Of the preset's own batch; None where it met the cap."""
        return self.measured(self.batch, _TOY_STEPS if self.place.toy else _STEPS)

    def _row(self, table: str, numbers: dict[str, object]) -> None:
        named = {"model": self.name, "checkpointing": self.config.train.activation_checkpointing}
        self.place.row(table, named | numbers)

    def predicted(self, batch: int) -> int:
        """Bytes, as `agd doctor` says it."""
        method, train = first_method(self.config), self.config.train
        checkpointing = train.activation_checkpointing
        return training_memory(self.sized, method, batch, activation_checkpointing=checkpointing).peak_bytes

    def measured(self, batch: int, steps: int) -> Peak | None:
        """The peak of a training; None where it met the cap."""
        train = self.config.train.model_copy(update={"batch_size": batch, "steps": steps})
        reader, method = RandomPairs(self.sized, trajectories=64, steps=16), first_method(self.config)
        try:
            return peak_of(lambda: training_of(self.sized, method, train, reader, self.device), self.device)
        except torch.OutOfMemoryError:
            return None

    def _tried(self, batch: int) -> int:
        """Bytes that a batch takes; just over the cap where it met it."""
        peak = self.measured(batch, _TOY_STEPS if self.place.toy else _TRY_STEPS)
        return self.cap + 1 if peak is None else peak.allocated
