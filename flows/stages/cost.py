"""What one step of every method costs on this device, as a JSON artefact of measured numbers."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from typing_extensions import TypedDict

from agd_core.basics.atomic import write_json
from agd_core.evaluation.bench import Bench
from agd_core.evaluation.cost import measure_costs
from agd_core.models.model import BaseModel
from agd_core.models.schedulers import build_scheduler
from flows.run import Run
from flows.stages.comparison import Method
from flows.stages.sample import opener
from flows.workplace import Workplace, describe_device
from storage.artefacts import Artefact

STAGE, VERSION = "cost", 2
COSTS = "costs.json"
SECONDS = 15.0
"""About how long it takes."""


def cost(run: Run, methods: Sequence[Method], seconds: float = SECONDS) -> Artefact:
    """Measure every method side by side in this process at the headline's scale, holding the device.

    All times are those of one run: another method, name, device or version of PyTorch measures all of them anew.

    Args:
        run: with the base model below all of them.
        methods: the first without guidance.
        seconds: about how long; no part of the identity.

    Raises:
        InputError: the device cannot hold a single image.
        Stopped: when asked to; run again to measure all of it.
    """
    place, scale, timesteps = run.place, run.config.sample.guidance_scale, _timesteps(run)
    sparing = [method.guidance.identity() for method in methods if method.guidance and method.training_free]
    is_varying = bool(sparing) or run.config.guidance.everywhere() != run.config.guidance
    identity = {
        "version": VERSION,
        "base_model": run.model.network_digest(),
        "methods": [[method.name, method.kind, method.adapter and method.adapter.digest] for method in methods],
        "guidance": run.config.guidance.identity(),
        "guidance_scale": scale,
        "timesteps": list(timesteps),
        "is_varying": is_varying,
        "device": describe_device(place.device),
        "versions": {name: version(name) for name in ("torch", "diffusers")},
    } | ({"training_free": sparing} if sparing else {})

    def work(artefact: Artefact) -> None:
        place.announce(f"{STAGE}: time, memory and FLOPs of {len(methods)} methods, about {seconds:g} s")
        progress = place.progress("measure cost")
        with place.on_device("measure cost"):
            opened = {method.name: opener(run, method.guidance, method.adapter) for method in methods}
            bench = Bench(opened, run.sampled, scale, timesteps, is_varying, place.should_stop)
            costs = measure_costs(bench, seconds, on_progress=progress)
        rows = [_described(method) | costs[method.name].as_dict() for method in methods]
        write_json({"methods": rows, **_surroundings(run.model, place)}, artefact.path / COSTS)

    return place.produce(STAGE, identity, work, measured=[COSTS], title="measure cost per step")


class StoredCosts(TypedDict):
    """What the file of an artefact of this stage holds."""

    device: str
    threads: int
    dtype: str
    torch: str
    methods: list[dict[str, Any]]


def read_cost(artefact: Artefact) -> StoredCosts:
    """What was measured: "methods" in order, and "device", "threads", "dtype" and "torch" (its version)."""
    return artefact.json(COSTS, StoredCosts)


def _timesteps(run: Run) -> tuple[float, ...]:
    """The sampler's."""
    sample = run.config.sample
    return tuple(build_scheduler(sample.scheduler, run.model.scheduler_config, sample.steps).timesteps.float().tolist())


def _described(method: Method) -> dict[str, Any]:
    return {"name": method.name, "method": method.kind, "adapter_parameters": method.parameters}


def _surroundings(base_model: BaseModel, place: Workplace) -> dict[str, Any]:
    return {
        "device": describe_device(place.device),
        "threads": torch.get_num_threads(),
        "dtype": str(base_model.dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }
