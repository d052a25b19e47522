"""Where a trajectories artefact keeps its store, and whether the store is whole.

The store lies in the artefact's own folder or, where the configuration names one, at a URL that fsspec knows. It has
its own checksums, so the artefact's manifest vouches for a summary of it and not for every shard.
"""

import json

from agd_core.atomic import write_json
from agd_core.errors import InputError, first_line
from storage.artefacts import SELF_CHECKED, Artefact
from storage.names import LOCATION
from storage.objects import ObjectStore, open_objects
from storage.verification import repair_store, store_problems
from storage.zarr_store import ZarrTrajectoryStore

STORE_SUMMARY = "store.json"


def new_store(artefact: Artefact, url: str | None) -> ObjectStore:
    """Where the artefact's store is to be: below a URL, or in the artefact's own folder.

    Raises:
        InputError: fsspec does not know such a place.
    """
    if url is None:
        return open_objects(str(artefact.path / SELF_CHECKED))
    try:
        return open_objects(f"{url.rstrip('/')}/{artefact.path.name}")
    except (ValueError, ImportError) as error:
        raise InputError(f"store.url {url} cannot be used: {first_line(error)}") from error


def remember_location(artefact: Artefact, url: str | None) -> None:
    """Note where the store is; one in the artefact's own folder may move with it."""
    write_json({"url": url and new_store(artefact, url).url}, artefact.path / LOCATION)


def objects_of(artefact: Artefact) -> ObjectStore:
    """The place that a trajectories artefact's store is in, by its note of that.

    Raises:
        OSError, ValueError, LookupError, TypeError: the note is missing or torn.
    """
    url = json.loads((artefact.path / LOCATION).read_text(encoding="utf-8"))["url"]
    return open_objects(url or str(artefact.path / SELF_CHECKED))


def open_trajectories(artefact: Artefact) -> ZarrTrajectoryStore:
    """The store of a trajectories artefact.

    Raises:
        InputError: it is not there, or damaged.
    """
    try:
        return ZarrTrajectoryStore.open(objects_of(artefact))
    except (OSError, ValueError) as error:
        raise InputError(f"trajectories {artefact.path} cannot be read: {error}") from error


def trajectory_problems(artefact: Artefact, deep: bool | None = None) -> list[str]:
    """One line per thing that is wrong with an artefact's store; empty when it is whole.

    Args:
        artefact: any artefact; only a trajectories artefact has a store.
        deep: sum every byte, not only sizes and labels; by default of a local store.
    """
    if not (artefact.path / LOCATION).exists():
        return []
    try:
        objects = objects_of(artefact)
        return store_problems(objects, objects.local if deep is None else deep)
    except (OSError, ValueError, LookupError, TypeError) as error:
        return [f"{artefact.path}: its store cannot be read: {error}"]


def repair_trajectories(artefact: Artefact) -> list[str]:
    """Delete what is torn in an artefact's store; returns the names."""
    try:
        return repair_store(objects_of(artefact))
    except (OSError, ValueError, LookupError, TypeError):
        return []  # nothing there, or its location is torn; the manifest's check names that
