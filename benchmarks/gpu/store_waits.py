"""Job: how long the training loop waits for pairs of a store, against the same pairs in memory.

One training whose reader takes its batches from the two in turns; ratios are of neighbouring turns.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from agd_core.data.records import StepBatch, TrajectoryReader
from benchmarks.gpu.networks import sized_of
from benchmarks.gpu.place import Place
from benchmarks.gpu.presets import first_method, preset_names
from benchmarks.gpu.stored_pairs import RandomPairs
from benchmarks.gpu.timing import Laps, divided, quartiles
from benchmarks.gpu.trainings import tensor_cores, trained, training_of
from flows.presets import load_config

TABLE = "seconds per training step"
_TURN, _TURNS, _TOY_TURN, _TOY_TURNS = 12, 6, 6, 4
"""Steps of a turn, and turns."""
_AHEAD = 4
"""So many steps after a turn's begin are not timed: their batches were read ahead, in the turn before."""
_COLLECTION, _TOY_COLLECTION = (64, 40), (16, 6)
"""Trajectories, and stored steps of each."""


class TurnsReader:
    """Reads from the first reader for so many batches, then as many from the second, and so on."""

    def __init__(self, readers: tuple[TrajectoryReader, TrajectoryReader], turn: int) -> None:
        self.plan, self._readers, self._turn = readers[0].plan, readers, turn
        self.seconds: tuple[list[float], list[float]] = ([], [])
        """Of every read, by reader."""
        self._batches = 0

    def read(self, pairs: np.ndarray) -> StepBatch:
        """The pairs of these indices."""
        which = self._batches // self._turn % 2
        self._batches += 1
        started = time.perf_counter()
        batch = self._readers[which].read(pairs)
        self.seconds[which].append(time.perf_counter() - started)
        return batch


def run(place: Place) -> None:
    """DiT-XL/2, whose batch of 64 makes the most reads, then SD2.1, whose pairs are larger."""
    with tensor_cores():
        for name in preset_names(place, "dit-xl-2-256", "sd21"):
            with place.part(model=name):
                _measure(place, name)


def _measure(place: Place, name: str) -> None:
    device, config = torch.device(place.device_name), load_config(name, ["train.activation_checkpointing=false"])
    turn, turns = (_TOY_TURN, _TOY_TURNS) if place.toy else (_TURN, _TURNS)
    dtype = torch.float32 if place.toy else torch.bfloat16
    sized, train = sized_of(config, device, dtype), config.train.model_copy(update={"steps": turn * turns})
    pairs, laps = RandomPairs(sized, *(_TOY_COLLECTION if place.toy else _COLLECTION)), Laps(device)
    with tempfile.TemporaryDirectory() as folder:
        reader = TurnsReader((pairs.written(Path(folder)), pairs), turn)
        laps.mark()
        trained(training_of(sized, first_method(config), train, reader, device), lambda done: laps.mark())
    stored, in_memory = _turn_medians(laps.seconds(), turn)
    row = {"model": name, "batch": train.batch_size, "from the store, s": statistics.median(stored)}
    row |= {"from memory, s": statistics.median(in_memory), "store / memory": quartiles(divided(stored, in_memory))}
    place.row(TABLE, row | {"one read of the store, s": statistics.median(reader.seconds[0])})


def _turn_medians(steps: list[float], turn: int) -> tuple[list[float], list[float]]:
    """A step's median seconds in every turn of each reader."""
    turns = [steps[first : first + turn][_AHEAD:] for first in range(0, len(steps), turn)]
    medians = [statistics.median(each) for each in turns]
    return medians[::2], medians[1::2]
