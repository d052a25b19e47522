"""Checking a whole Zarr store, and repairing it by deleting only what is torn; collecting again fills the gaps."""

import re
from contextlib import suppress

from agd_core.basics.errors import InputError
from storage.errors import Damaged, OtherContent
from storage.names import PLAN
from storage.objects import ObjectStore
from storage.trajectories.markers import marker_key, read_marker
from storage.trajectories.plan_file import ListedFile, listed_files
from storage.trajectories.zarr_store import ZarrTrajectoryStore

_OUR_NAMES = re.compile(r"latents/c\.\d+(\.0)+|index/u-\d{6,}\.parquet")


def store_problems(objects: ObjectStore, deep: bool = True) -> list[str]:
    """One line per thing that is missing, torn or foreign; empty when the store is whole.

    Args:
        objects: where the store is.
        deep: sum every byte of every shard, not only sizes and labels.
    """
    try:
        if torn := _torn_preparation(objects):
            return [f"{objects.url}/{key}: {what}" for key, what in torn.items()]
        store = ZarrTrajectoryStore.open(objects)
    except ValueError as error:
        return [f"{objects.url}/{PLAN}: {error}"]
    found = [problem for unit in range(store.plan.units) for problem in store.unit_problems(unit, deep)]
    return found + [f"{objects.url}/{key}: does not belong here" for key in _strangers(store)]


def repair_store(objects: ObjectStore) -> list[str]:
    """Delete what is torn, and what killed writers left; intact units are not touched.

    Returns:
        The deleted keys. A store that lost its plan's files gets them back when its collection is run again; of a
        store in another format nothing is judged.
    """
    deleted = objects.remove_abandoned()
    try:
        torn = list(_torn_preparation(objects))
        store = None if torn else ZarrTrajectoryStore.open(objects)
    except OtherContent:
        return deleted
    except ValueError:
        torn, store = [PLAN], None
    torn += _torn_units(store) if store else []
    return deleted + [key for key in torn if _deleted(objects, key)]


def _torn_units(store: ZarrTrajectoryStore) -> list[str]:
    return [key for unit in range(store.plan.units) for key in _torn_keys(store, unit)] + _strangers(store)


def _deleted(objects: ObjectStore, key: str) -> bool:
    """Delete what lies at a key, be it a link, which goes itself; False if nothing is there or it is a folder."""
    with suppress(InputError):
        if objects.size(key) is None:
            return False
    try:
        objects.delete(key)
    except (InputError, OSError):
        return False
    return True


def _torn_preparation(objects: ObjectStore) -> dict[str, str]:
    """What is wrong with the plan and the files that it vouches for, by key."""
    try:
        listed = listed_files(objects.read(PLAN))
    except FileNotFoundError:
        return {PLAN: "missing"}
    except Damaged as error:
        return {PLAN: str(error)}
    return {key: what for key, expected in listed.items() if (what := _difference(objects, key, expected))}


def _difference(objects: ObjectStore, key: str, expected: ListedFile) -> str | None:
    try:
        return None if ListedFile.of(objects.read(key)) == expected else "not what was written"
    except FileNotFoundError:
        return "missing"
    except InputError as error:
        return str(error)


def _torn_keys(store: ZarrTrajectoryStore, unit: int) -> list[str]:
    """A torn marker; or every torn shard of a unit together with the marker that vouched for it."""
    key = marker_key(unit)
    try:
        shards = read_marker(store.objects.read(key), store.plan, unit)
    except FileNotFoundError:
        return []
    except InputError:
        return [key]
    torn = [shard.key for shard in shards if store.shard_problem(shard)]
    return [key, *torn] if torn else []


def _strangers(store: ZarrTrajectoryStore) -> list[str]:
    """Shards and markers that the plan does not know."""
    ours = {*map(marker_key, range(store.plan.units)), *map(store.layout.key, range(store.plan.shards))}
    keys = [*store.objects.keys("latents"), *store.objects.keys("index")]
    return [key for key in keys if _OUR_NAMES.fullmatch(key) and key not in ours]
