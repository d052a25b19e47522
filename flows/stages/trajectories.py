"""Where a trajectories artefact keeps its store, and whether the store is whole.

The store lies in the artefact's own folder or, where the configuration names one, at a URL that fsspec knows. It has
its own checksums, so the artefact's manifest vouches for a summary of it and not for every shard.

An artefact's note of a URL is followed only where the user names that place too (`named`: `store.url` of the
configuration, `--follow` of `agd verify`): the folder may come from anybody, and its note could name anything.
"""

from typing_extensions import TypedDict

from agd_core.basics.atomic import write_json
from agd_core.basics.errors import InputError, naming
from agd_core.basics.safe_files import confined, printable
from storage.artefacts import SELF_CHECKED, Artefact
from storage.names import LOCATION
from storage.objects import LocalObjects, ObjectStore, open_objects
from storage.trajectories.verification import repair_store, store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore

STORE_SUMMARY = "store.json"


class _Location(TypedDict):
    url: str | None


class NotNamed(InputError):
    """The trajectories lie at a place that the user did not name."""

    def __init__(self, artefact: Artefact, url: str) -> None:
        base = printable(url.removesuffix(f"/{artefact.path.name}"))
        super().__init__(
            f"{artefact.path}: its {LOCATION} says that its trajectories lie at {printable(url)}; nothing was asked "
            f"there: name the place yourself if you know it, --set store.url={base}, or agd verify --follow {base}"
        )


def new_store(artefact: Artefact, url: str | None) -> ObjectStore:
    """Where the artefact's store is to be: below a URL, or in the artefact's own folder.

    Raises:
        InputError: fsspec does not know such a place, or a link leads out of the folder.
    """
    if url is None:
        return LocalObjects(confined(artefact.path, SELF_CHECKED))
    return _open(url, below=f"/{artefact.path.name}")


def remember_location(artefact: Artefact, url: str | None) -> None:
    """Note where the store is; one in the artefact's own folder may move with it."""
    write_json({"url": url and new_store(artefact, url).url}, artefact.path / LOCATION)


def objects_of(artefact: Artefact, named: str | None) -> ObjectStore:
    """The place that a trajectories artefact's store is in, by its note of that.

    Args:
        artefact: the artefact.
        named: the place that the user names: that of all its collections, or that of this one.

    Raises:
        NotNamed: the note leads anywhere else.
        InputError: the note is missing or torn, or the place cannot be used.
    """
    url = artefact.json(LOCATION, _Location)["url"]
    if url is None:
        return new_store(artefact, None)
    if named is None or url not in (_open(named).url, new_store(artefact, named).url):
        raise NotNamed(artefact, url)
    return _open(url)


def open_trajectories(artefact: Artefact, named: str | None = None) -> ZarrTrajectoryStore:
    """The store of a trajectories artefact; arguments as `objects_of`.

    Raises:
        InputError: it is not there, or damaged.
    """
    try:
        return ZarrTrajectoryStore.open(objects_of(artefact, named))
    except NotNamed:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"trajectories {artefact.path} cannot be read: {error}") from error


def trajectory_problems(artefact: Artefact, named: str | None = None, deep: bool | None = None) -> list[str]:
    """One line per thing that is wrong with an artefact's store; empty when it is whole.

    Args:
        artefact: any artefact; only a trajectories artefact has a store.
        named: see `objects_of`.
        deep: sum every byte, not only sizes and labels; by default of a local store.

    Raises:
        NotNamed: it lies at a place that the user did not name.
    """
    if not (artefact.path / LOCATION).exists():
        return []
    try:
        objects = objects_of(artefact, named)
        return store_problems(objects, objects.local if deep is None else deep)
    except NotNamed:
        raise
    except (OSError, ValueError) as error:
        return [f"{artefact.path}: its store cannot be read: {error}"]


def repair_trajectories(artefact: Artefact, named: str | None = None) -> list[str]:
    """Delete what is torn in an artefact's store; returns the names. Arguments as `objects_of`."""
    try:
        return repair_store(objects_of(artefact, named))
    except (OSError, ValueError):
        return []  # nothing there, not named, or its location is torn; the manifest's check names that


def _open(url: str, below: str = "") -> ObjectStore:
    with naming("store.url"):
        return open_objects(url.rstrip("/") + below)
