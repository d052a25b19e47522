"""Growing a collection: what another collection of the same output folder has already is brought over.

Trajectory i depends on the settings and i alone, so collections of the same settings and different lengths have their
full units of work in common.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from agd_core.basics.progress import Stopped
from agd_core.data.records import CollectionPlan
from flows.stages.trajectories import new_store, objects_of
from flows.workplace import Workplace
from storage.artefacts import Artefact
from storage.objects import ObjectStore
from storage.trajectories.sharing import shared_units, take_over
from storage.trajectories.zarr_store import ZarrTrajectoryStore


def units_elsewhere(
    artefact: Artefact, plan: CollectionPlan, missing: Sequence[int], store_url: str | None
) -> set[int]:
    """Which units of a plan other artefacts beside this one hold; nothing is brought over."""
    return {unit for _, units in _offers(artefact, plan, missing, store_url) for unit in units}


def known_conditions(
    artefact: Artefact, own: ObjectStore, identity: Mapping[str, Any], store_url: str | None
) -> Mapping[str, np.ndarray] | None:
    """The condition tensors of an earlier start here, or of another collection with this identity; None without one.

    Encoded prompts differ in their last bits from device to device, so a collection keeps those that it began with. And
    nothing is encoded twice.
    """
    for store in (own, *_siblings(artefact, store_url)):
        with suppress(OSError, ValueError, ImportError):  # what cannot be read tells nothing
            if dict((plan := ZarrTrajectoryStore.open(store).plan).identity) == dict(identity):
                return plan.conditions
    return None


def bring_over(
    artefact: Artefact,
    store: ZarrTrajectoryStore,
    missing: Sequence[int],
    place: Workplace,
    store_url: str | None = None,
) -> list[int]:
    """Take missing units over from other artefacts, each proved to the last byte and committed.

    Args:
        artefact: the collection.
        store: its store.
        missing: the units that it lacks.
        place: whom to tell.
        store_url: the place outside of the output folder that the user named; no other is asked.

    Returns:
        What is missing still, in order.

    Raises:
        Stopped: between two units, when asked to.
    """
    left = dict.fromkeys(missing)
    for source, units in _offers(artefact, store.plan, missing, store_url):
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
    artefact: Artefact, plan: CollectionPlan, missing: Sequence[int], store_url: str | None
) -> Iterator[tuple[ObjectStore, list[int]]]:
    """Every other store of the output folder, finished or not, with the missing units that it holds."""
    for source in _siblings(artefact, store_url) if missing else ():
        with suppress(OSError, ValueError, ImportError):  # what cannot be read is no offer
            yield source, shared_units(source, plan, missing)


def _siblings(artefact: Artefact, store_url: str | None) -> Iterator[ObjectStore]:
    """The stores of other collections of this output folder."""
    paths = artefact.path.parent.glob(f"{artefact.stage}-*")
    for path in sorted(path for path in paths if path != artefact.path and path.is_dir() and not path.is_symlink()):
        with suppress(OSError, ValueError, ImportError):
            yield _store_at(Artefact(path, artefact.stage, ""), store_url)


def _store_at(artefact: Artefact, store_url: str | None) -> ObjectStore:
    """Where an artefact's store is; in its own folder, if its note is lost or torn, or leads where the user did not."""
    try:
        return objects_of(artefact, store_url)
    except (OSError, ValueError):
        return new_store(artefact, None)
