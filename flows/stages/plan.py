"""What a collection would cost, before any of it is done: `agd collect --dry-run`."""

from typing import Any

from agd_core.data.records import CollectionPlan
from flows.run import Run
from flows.stages.collect import STAGE, artefact_identity, collection_plan, refuse_the_impossible
from flows.stages.repetitions import collection_steps
from flows.stages.sharing import units_elsewhere
from flows.stages.stopwatch import Stopwatch
from flows.stages.trajectories import new_store
from flows.workplace import describe_device
from storage.artefacts import ARTEFACTS, ArtefactStore
from storage.trajectories.layout import StoreLayout
from storage.trajectories.zarr_store import ZarrTrajectoryStore

_SECONDS = 2.0
"""About how long a step is measured."""
_GIGABYTE = 1e9
_HOUR = 3600.0


def plan_costs(run: Run) -> dict[str, Any]:
    """The plan in numbers: trajectories, network evaluations, gigabytes, and hours from a step measured here.

    `gigabytes` counts latents and predictions with their checksums and index; `hours` is for the units that are
    still missing; `units_elsewhere` are not among them, they will be taken over from other collections of this output
    folder. `reads_per_pair` is how often training reads each stored pair: below 1, pairs would be collected and never
    read.
    """
    config, collect = run.config, run.collect
    if config.store.url is None:
        refuse_the_impossible(run)
    plan = collection_plan(run)
    step, evaluations = collection_steps(run)
    each = step.seconds_per_unit(run, Stopwatch(run.place.device), _SECONDS)  # network evaluation
    whole_batches = len(plan.trajectories) / step.rows
    missing, elsewhere = _missing_units(run, plan)
    left = sum(len(plan.unit(unit)) for unit in missing)
    return {
        "trajectories": len(plan.trajectories),
        "sampler_steps": collect.steps,
        "stored_steps": plan.stored_steps,
        "pairs": plan.pairs,
        "pairs_read_by_training": config.most_pairs_read,
        "reads_per_pair": config.most_pairs_read / plan.pairs,
        "states": run.states.text,
        "network_evaluations": evaluations,
        "gigabytes": _stored_bytes(plan) / _GIGABYTE,
        "units": plan.units,
        "units_missing": len(missing),
        "units_elsewhere": len(elsewhere),
        "seconds_per_step": evaluations * each / whole_batches / collect.steps,
        "batch_size": step.rows,
        "hours": left / len(plan.trajectories) * evaluations * each / _HOUR,
        "device": describe_device(run.place.device),
    }


def plan_lines(costs: dict[str, Any]) -> list[str]:
    """The same for people, with a warning where pairs would be collected and never read."""
    pairs, reads = costs["pairs"], costs["reads_per_pair"]
    shared = f"{costs['units_elsewhere']:,} more are taken over, " if costs["units_elsewhere"] else ""
    lines = [
        f"{costs['trajectories']:,} trajectories of {costs['sampler_steps']} steps, {costs['stored_steps']} stored: "
        f"{pairs:,} pairs, {costs['gigabytes']:.3g} GB in {costs['units']:,} units",
        f"training reads {costs['pairs_read_by_training']:,} pairs: each stored pair {reads:.2f} times",
        f"states: {costs['states']}",
        f"{costs['network_evaluations']:,} network evaluations; {costs['units_missing']:,} units still missing, "
        f"{shared}about {costs['hours']:.2g} hours ({costs['seconds_per_step'] * 1e3:.3g} ms for a step of "
        f"{costs['batch_size']} on {costs['device']}, measured now)",
    ]
    if reads < 1:
        lines.append(
            f"warning: {1 - reads:.0%} of the pairs would never be read; lower collect.trajectories or leave it out"
        )
    return lines


def _missing_units(run: Run, plan: CollectionPlan) -> tuple[list[int], set[int]]:
    """Units that must be computed, and units that can be taken over."""
    url = run.config.store.url
    artefact = ArtefactStore(run.place.output / ARTEFACTS).artefact(STAGE, artefact_identity(plan))
    store = ZarrTrajectoryStore(new_store(artefact, url), plan)
    missing = [unit for unit in range(plan.units) if store.unit_problems(unit, deep=False)]
    elsewhere = units_elsewhere(artefact, plan, missing, url)
    return [unit for unit in missing if unit not in elsewhere], elsewhere


def _stored_bytes(plan: CollectionPlan) -> int:
    return sum(map(StoreLayout(plan).size, range(plan.shards)))
