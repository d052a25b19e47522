"""Units that another store has already: collections of the same settings and different lengths have them in common.

A unit is known by what it holds (`CollectionPlan.unit_ids`), and its shards and its marker say which one they are, so
another store is looked at with our own plan: whatever became of that store's plan and of the rest of it.
"""

from collections.abc import Iterable

from agd_core.data.records import CollectionPlan
from storage.errors import Damaged, OtherContent
from storage.names import PLAN
from storage.objects import ObjectStore
from storage.trajectories.markers import MARKERS, marker_key
from storage.trajectories.plan_file import plan_settings_id
from storage.trajectories.zarr_store import ZarrTrajectoryStore


def shared_units(source: ObjectStore, plan: CollectionPlan, units: Iterable[int]) -> list[int]:
    """Which of these units of a plan are committed in another place; sizes and labels are looked at, not every byte."""
    if not _may_share(source, plan):
        return []
    markers, theirs = set(source.keys(MARKERS)), ZarrTrajectoryStore(source, plan)
    return [unit for unit in units if marker_key(unit) in markers and not theirs.unit_problems(unit, deep=False)]


def take_over(store: ZarrTrajectoryStore, source: ObjectStore, unit: int) -> bool:
    """Bring a unit over and commit it, once every byte of it is proved.

    Returns:
        False if something of it is missing there or damaged; what is whole was brought over.
    """
    with store.open_unit(unit) as writer:
        try:
            writer.take(source)
        except (FileNotFoundError, Damaged):
            return False
        if writer.wanted:
            return False
        writer.commit()
    return True


def _may_share(source: ObjectStore, plan: CollectionPlan) -> bool:
    """Not if its plan says that it has other settings; a plan that is lost or torn says nothing."""
    try:
        return plan_settings_id(source.read(PLAN)) == plan.settings_id
    except (FileNotFoundError, Damaged):
        return True
    except OtherContent:
        return False
