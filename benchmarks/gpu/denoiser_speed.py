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
from benchmarks.gpu.compiling import CAPTURED, EAGER, MODES, captured, compiled, graph_breaks, graphs
from benchmarks.gpu.networks import Inputs, RandomModel, flops_of, free, sides, sized_of, trained_of
from benchmarks.gpu.place import Place
from benchmarks.gpu.presets import first_method, preset_names
from benchmarks.gpu.timing import Side, divided, quartiles, time_sides
from flows.presets import load_config

TABLE = "seconds per step"
_BATCHES: dict[str, Sequence[int]] = {EAGER: (1, 8, 32), CAPTURED: (1, 2, 4, 8, 16, 32, 64)}
_COMPILED_BATCHES = (1, 8)
_ROUNDS, _TOY_ROUNDS = 9, 2
_SATURATED = 1.03
"""A doubled batch that gives less than so many times the images per second is the last."""
Times = Mapping[str, Sequence[float]]


def run(place: Place) -> None:
    """Every model captured and eager, then compiled, which takes long."""
    device = torch.device(place.device_name)
    dtype = torch.float32 if place.toy else torch.bfloat16
    place.fact(precision=str(dtype).removeprefix("torch."))
    for name, mode in _columns(place):
        with place.part(model=name, mode=mode):
            _Column(place, name, mode, device, dtype).measure()
        free(device)


def _columns(place: Place) -> list[tuple[str, str]]:
    """Models and modes, what takes longest last; at toy size one model shows every mode."""
    models = preset_names(place, "dit-xl-2-256", "sdxl", "sd21", "sd3")
    captured_models = models[:1] if place.toy else models
    compiling = [mode for mode, arguments in MODES.items() if arguments is not None]
    plain = [*product(captured_models, (CAPTURED,)), *product(models, (EAGER,))]
    return [*plain, *product(captured_models, compiling)]


class _Column:
    """One model in one mode."""

    def __init__(self, place: Place, name: str, mode: str, device: torch.device, dtype: torch.dtype) -> None:
        self.place, self.name, self.mode, self.device = place, name, mode, device
        config = load_config(name)
        self.sized = sized_of(config, device, dtype)
        self.model = RandomModel(self.sized, device)
        chosen = (*config.methods, ModulatedMlpConfig(), LoraConfig()) if mode in _BATCHES else (first_method(config),)
        self.methods = {method.kind: trained_of(method, self.model) for method in chosen}

    @property
    def _batches(self) -> Sequence[int]:
        batches = _BATCHES.get(self.mode, _COMPILED_BATCHES)
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
            return time_sides(self._ready(found, held), rounds, self.device)

    def _ready(self, found: Mapping[str, Side], held: ExitStack) -> Mapping[str, Side]:
        """The sides as this mode runs them."""
        if self.mode == EAGER:
            return found
        return _captured(found, self.device) if self.mode == CAPTURED else _kept(found, held)

    def _by_flops(self) -> dict[str, float]:
        """FLOPs of each method's step over the bare step's."""
        found = sides(self.model, self.methods, Inputs.random(self.sized, 1, self.device))
        bare = flops_of(found["bare"])
        return {kind: flops_of(found[kind]) / bare for kind in self.methods}

    def _row(self, batch: int, kind: str, times: Times, by_flops: Mapping[str, float]) -> dict[str, object]:
        row: dict[str, object] = {"model": self.name, "mode": self.mode, "batch": batch, "method": kind}
        row |= _numbers(times["bare"], times["CFG"], times[kind]) if times else {}
        compiled_to = {} if self.mode in _BATCHES else {"graph breaks": graph_breaks(), "graphs": graphs()}
        return row | {"method / bare by FLOPs": by_flops.get(kind), **compiled_to}


def _numbers(bare: Sequence[float], cfg: Sequence[float], method: Sequence[float]) -> dict[str, object]:
    medians = {"bare, ms": bare, "CFG, ms": cfg, "method, ms": method}
    return {
        **{name: 1e3 * statistics.median(times) for name, times in medians.items()},
        "CFG / method (quartiles)": quartiles(divided(cfg, method)),
        "method / bare (quartiles)": quartiles(divided(method, bare)),
    }


def _captured(found: Mapping[str, Side], device: torch.device) -> dict[str, Side]:
    """Sides whose step is a graph; a method need not be installed when its graph runs."""
    ready: dict[str, Side] = {}
    for name, side in found.items():
        with side() as step:
            ready[name] = partial(nullcontext, captured(step, device))
    return ready


def _kept(found: Mapping[str, Side], held: ExitStack) -> dict[str, Side]:
    """Sides that stay ready: a method that came and went would be compiled anew every time."""
    return {name: partial(nullcontext, held.enter_context(side())) for name, side in found.items()}
