"""Stage 1: guided trajectories into a store, resumable by unit of work.

A longer collection takes over what a shorter one of the same settings has, and several collectors may share one store.
"""

import math
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from agd_core.basics.atomic import write_json
from agd_core.basics.progress import Stopped
from agd_core.data.records import CARRIERS, CollectionPlan
from agd_core.data.trajectory import collect_unit, plan_collection
from flows.run import Run
from flows.stages.evaluations import collection_evaluations
from flows.stages.sharing import bring_over, known_conditions
from flows.stages.trajectories import STORE_SUMMARY, new_store, remember_location, trajectory_problems
from flows.workplace import Workplace, describe_device
from storage.artefacts import Artefact
from storage.names import LOCATION
from storage.objects import LocalObjects
from storage.trajectories.claims import claimed, clear_claims
from storage.trajectories.zarr_store import ZarrTrajectoryStore

STAGE, VERSION = "trajectories", 4


def collect(run: Run) -> Artefact:
    """Record the planned trajectories; units that are committed already, here or in a sibling artefact, are kept.

    Raises:
        InputError: not enough disk space, or the store's place holds something else.
        NotNamed: it is collected already, to a place that `store.url` does not name.
        Stopped: when asked to; run again to resume.
    """
    place, url = run.place, run.config.store.url
    if url is None:
        refuse_the_impossible(run)
    identity = collection_identity(run)

    def work(artefact: Artefact) -> None:
        conditions = known_conditions(artefact, new_store(artefact, url), identity, url)
        plan = plan_collection(run.collect, run.collected, identity, conditions)
        store = _prepared(artefact, plan, place, url)
        collect_missing(run, store, bring_over(artefact, store, store.missing_units(), place, url))
        clear_claims(store.objects)
        write_json(_summary(store) | _states(run), artefact.path / STORE_SUMMARY)

    def check(artefact: Artefact) -> list[str]:
        return trajectory_problems(artefact, url)

    key = {**identity, "trajectories": run.collect.trajectories}
    title = f"collect {run.collect.trajectories} trajectories"
    return place.produce(STAGE, key, work, measured=[LOCATION], check=check, title=title)


def collection_plan(run: Run) -> CollectionPlan:
    """What `collect` will record where nothing is there yet."""
    return plan_collection(run.collect, run.collected, collection_identity(run))


def collection_identity(run: Run) -> dict[str, Any]:
    """What tells one trajectory from another; so it leaves out how many there are."""
    identity = {
        "version": VERSION,
        "base_model": run.model.pipeline_digest(),
        "prompts": run.collected.identity(),
        "guidance": run.config.teacher_identity,
        "collect": run.collect.identity(),
    }
    return identity | ({"images": run.real_images.identity(run.place)} if run.real_images else {})


def artefact_identity(plan: CollectionPlan) -> dict[str, Any]:
    """What the artefact's key is made of: the plan's identity, and how many trajectories."""
    return {**plan.identity, "trajectories": len(plan.trajectories)}


def refuse_the_impossible(run: Run) -> None:
    """What exceeds the whole disk is refused before its plan, one row per trajectory, fills the memory."""
    config, place = run.collect, run.place
    channels, *sides = run.model.latent_shape
    pair = (channels + run.model.prediction_channels) * math.prod(sides)
    values = pair * config.stored_steps * (config.trajectories or 0)
    needed = values * np.dtype(CARRIERS[config.dtype]).itemsize
    place.output.mkdir(parents=True, exist_ok=True)
    if needed > shutil.disk_usage(place.output).total:
        place.require_space(needed, "collecting these trajectories")


def _prepared(artefact: Artefact, plan: CollectionPlan, place: Workplace, url: str | None) -> ZarrTrajectoryStore:
    store = ZarrTrajectoryStore.prepare(new_store(artefact, url), plan, describe_device(place.device))
    remember_location(artefact, url)
    return store


def collect_missing(run: Run, store: ZarrTrajectoryStore, missing: Sequence[int]) -> None:
    """Collect these units of a store that other collectors may be working on at the same time.

    Raises:
        InputError: not enough disk space.
        Stopped: when asked to; what is committed stays.
    """
    place = run.place
    _require_room(store, missing, place)
    plan, progress = store.plan, place.progress("collect")
    done, wanted = plan.units - len(missing), len(plan.trajectories)
    place.announce(f"{STAGE}: collecting {wanted} trajectories, {done} of {plan.units} units there already")
    if not missing:
        return
    run.states.prepare()
    for name, what in _states(run).items():
        place.announce(f"{STAGE}: {name.replace('_', ' ')}: {what}")

    try:
        with place.on_device(f"collect {wanted} trajectories"):
            for _ in _shared_out(run, store, missing):
                done += 1
                progress(done, plan.units, "units")
    except Stopped as stop:
        raise Stopped(f"stopped with {done} of {plan.units} units committed; run the same command to resume") from stop


def _require_room(store: ZarrTrajectoryStore, missing: Sequence[int], place: Workplace) -> None:
    if isinstance(store.objects, LocalObjects):
        plan = store.plan
        needed = sum(len(plan.unit(unit)) for unit in missing) * plan.stored_steps * plan.pair_bytes
        place.require_space(needed, "collecting these trajectories", store.objects.root)


def _shared_out(run: Run, store: ZarrTrajectoryStore, units: Sequence[int]) -> Iterator[int]:
    """Do the units that nobody else has committed; those that somebody is busy with come last.

    So two collectors of one store compute at most one unit twice, the last, and none waits for one that died.
    """
    busy: list[int] = []

    def do(unit: int) -> None:
        if store.misses(unit):
            with claimed(store.objects, unit) as free:
                if free or unit in busy:
                    with store.write_unit(unit) as writer:
                        collect_unit(run.states, run.model, store.plan, writer, run.collect, run.place.should_stop)
                else:
                    busy.append(unit)

    for unit in run.place.each_unit(units, do, store.objects.url):
        if unit not in busy:
            yield unit
    yield from run.place.each_unit(tuple(busy), do, store.objects.url) if busy else ()


def _states(run: Run) -> dict[str, object]:
    """What is said of states that are not those of guided sampling, which go without saying."""
    if run.collect.states == "guided":
        return {}
    return {"states": run.states.text, "network_evaluations": collection_evaluations(run)}


def _summary(store: ZarrTrajectoryStore) -> dict[str, object]:
    shards = store.committed_shards()
    return {
        "digest": store.content_digest(),
        "dataset_id": store.plan.dataset_id,
        "trajectories": len(store.plan.trajectories),
        "pairs": store.plan.pairs,
        "units": store.plan.units,
        "bytes": sum(shard.size for shard in shards),
    }
