"""Job: how long a network's step takes bare, under CFG and with each method, from batch 1 up to saturation.

A step is one prediction; the sampler's arithmetic, and what it computes once before its first step, are left out. Sides
take turns; ratios are taken within a round. A column ends where memory does, or where twice the batch gives no more
images per second.
"""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import product

import torch

from agd_core.methods import LoraConfig, ModulatedMlpConfig
from benchmarks.gpu.compiling import MODES, compiled, graph_breaks, graphs
from benchmarks.gpu.networks import Inputs, RandomModel, flops_of, free, sides, sized_of, trained_of
from benchmarks.gpu.place import Place
from benchmarks.gpu.presets import first_method, preset_names
from benchmarks.gpu.timing import Side, divided, quartiles, time_sides
from flows.presets import load_config

TABLE = "seconds per step"
_BATCHES, _COMPILED_BATCHES = (1, 2, 4, 8, 16), (1, 8)
_ROUNDS, _TOY_ROUNDS = 9, 2
_SATURATED = 1.03
"""A doubled batch that gives less than so many times the images per second is the last."""
Times = Mapping[str, Sequence[float]]


def run(place: Place) -> None:
    """Every model in every mode, eager first, for compiling takes long."""
    device = torch.device(place.device_name)
    dtype = torch.float32 if place.toy else torch.bfloat16
    place.fact(precision=str(dtype).removeprefix("torch."))
    models, (eager, *others) = preset_names(place, "dit-xl-2-256", "sdxl", "sd21", "sd3"), MODES
    for name, mode in (*product(models, (eager,)), *product(models[:1] if place.toy else models, others)):
        with place.part(model=name, mode=mode):
            _Column(place, name, mode, device, dtype).measure()
        free(device)


class _Column:
    """One model in one mode."""

    def __init__(self, place: Place, name: str, mode: str, device: torch.device, dtype: torch.dtype) -> None:
        self.place, self.name, self.mode, self.device = place, name, mode, device
        config = load_config(name)
        self.sized = sized_of(config, device, dtype)
        self.model = RandomModel(self.sized, device)
        chosen = (*config.methods, ModulatedMlpConfig(), LoraConfig()) if mode == "eager" else (first_method(config),)
        self.methods = {method.kind: trained_of(method, self.model) for method in chosen}

    @property
    def _batches(self) -> Sequence[int]:
        batches = _BATCHES if self.mode == "eager" else _COMPILED_BATCHES
        return batches[:1] if self.place.toy else batches

    def measure(self) -> None:
        """All batches."""
        by_flops = self._by_flops()
        before = 0.0
        with compiled(self.model.network, self.mode, self.place.toy):
            for batch in self._batches:
                try:
                    times = self._times(batch)
                except torch.OutOfMemoryError:
                    return self.place.row(TABLE, self._row(batch, "out of memory", {}, {}))
                for kind in self.methods:
                    self.place.row(TABLE, self._row(batch, kind, times, by_flops))
                rate = batch / statistics.median(times["bare"])
                if rate < _SATURATED * before:
                    return None
                before = rate
        return None

    def _times(self, batch: int) -> Times:
        rounds = _TOY_ROUNDS if self.place.toy else _ROUNDS
        found = sides(self.model, self.methods, Inputs.random(self.sized, batch, self.device))
        with ExitStack() as held:
            return time_sides(found if self.mode == "eager" else _kept(found, held), rounds, self.device)

    def _by_flops(self) -> dict[str, float]:
        """FLOPs of each method's step over the bare step's."""
        found = sides(self.model, self.methods, Inputs.random(self.sized, 1, self.device))
        bare = flops_of(found["bare"])
        return {kind: flops_of(found[kind]) / bare for kind in self.methods}

    def _row(self, batch: int, kind: str, times: Times, by_flops: Mapping[str, float]) -> dict[str, object]:
        row: dict[str, object] = {"model": self.name, "mode": self.mode, "batch": batch, "method": kind}
        row |= _numbers(times["bare"], times["CFG"], times[kind]) if times else {}
        compiled_to = {} if self.mode == "eager" else {"graph breaks": graph_breaks(), "graphs": graphs()}
        return row | {"method / bare by FLOPs": by_flops.get(kind), **compiled_to}


def _numbers(bare: Sequence[float], cfg: Sequence[float], method: Sequence[float]) -> dict[str, object]:
    medians = {"bare, ms": bare, "CFG, ms": cfg, "method, ms": method}
    return {
        **{name: 1e3 * statistics.median(times) for name, times in medians.items()},
        "CFG / method (quartiles)": quartiles(divided(cfg, method)),
        "method / bare (quartiles)": quartiles(divided(method, bare)),
    }


def _kept(found: Mapping[str, Side], held: ExitStack) -> dict[str, Side]:
    """Sides that stay ready: a method that came and went would be compiled anew every time."""
    return {name: partial(nullcontext, held.enter_context(side())) for name, side in found.items()}
