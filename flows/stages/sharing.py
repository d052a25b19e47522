"""Growing a collection: what another collection of the same output folder has already is brought over.

Trajectory i depends on the settings and i alone, so collections of the same settings and different lengths have their
full units of work in common.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress

from agd_core.progress import Stopped
from agd_core.records import CollectionPlan
from flows.stages.trajectories import new_store, objects_of
from flows.workplace import Workplace
from storage.artefacts import Artefact
from storage.objects import ObjectStore
from storage.sharing import shared_units, take_over
from storage.zarr_store import ZarrTrajectoryStore


def units_elsewhere(artefact: Artefact, plan: CollectionPlan, missing: Sequence[int]) -> set[int]:
    """Which units of a plan other artefacts beside this one hold; nothing is brought over."""
    return {unit for _, units in _offers(artefact, plan, missing) for unit in units}


def bring_over(artefact: Artefact, store: ZarrTrajectoryStore, missing: Sequence[int], place: Workplace) -> list[int]:
    """Take missing units over from other artefacts, each proved to the last byte and committed.

    Returns:
        What is missing still, in order.

    Raises:
        Stopped: between two units, when asked to.
    """
    left = dict.fromkeys(missing)
    for source, units in _offers(artefact, store.plan, missing):
        before = len(left)
        for unit in [unit for unit in units if unit in left]:
            if place.should_stop():
                done, planned = store.plan.units - len(left), store.plan.units
                raise Stopped(f"stopped with {done} of {planned} units committed; run the same command to resume")
            if _taken(store, source, unit):
                del left[unit]
        if taken := before - len(left):
            place.announce(f"{artefact.stage}: {taken} of {store.plan.units} units taken over from {source.url}")
    return list(left)


def _taken(store: ZarrTrajectoryStore, source: ObjectStore, unit: int) -> bool:
    try:
        return take_over(store, source, unit)
    except OSError:
        return False  # it is collected instead, and fails there if the fault is on our side


def _offers(
    artefact: Artefact, plan: CollectionPlan, missing: Sequence[int]
) -> Iterator[tuple[ObjectStore, list[int]]]:
    """Every other store of the output folder, finished or not, with the missing units that it holds."""
    siblings = artefact.path.parent.glob(f"{artefact.stage}-*") if missing else ()
    for path in sorted(path for path in siblings if path != artefact.path and path.is_dir()):
        with suppress(OSError, ValueError, ImportError):  # what cannot be read is no offer
            source = _store_at(Artefact(path, artefact.stage, ""))
            yield source, shared_units(source, plan, missing)


def _store_at(artefact: Artefact) -> ObjectStore:
    """Where an artefact's store is; in its own folder, if its note of that is lost or torn."""
    try:
        return objects_of(artefact)
    except (OSError, ValueError, LookupError, TypeError):
        return new_store(artefact, None)
