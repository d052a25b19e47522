"""Trajectories in other forms, and back: shuffled WebDataset tars for streaming, a compressed archive for keeping."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.data.records import CollectionPlan
from flows.stages.collect import STAGE
from flows.stages.trajectories import open_trajectories
from flows.workplace import Workplace
from storage.artefacts import Artefact, find_artefacts
from storage.exports import archive, webdataset
from storage.exports.base import ExportIndex, OnProgress, read_carried_plan, read_index
from storage.exports.webdataset import TarSet
from storage.names import NOTE, PLAN
from storage.objects import ObjectStore, open_objects
from storage.trajectories.layout import StoreLayout
from storage.trajectories.zarr_store import ZarrTrajectoryStore


def export_webdataset(source: str, target: str, tar_bytes: int, seed: int, place: Workplace) -> dict[str, Any]:
    """Write a store as WebDataset tars; run it again to continue.

    Args:
        source: an output folder, a trajectories artefact, or a store's folder or URL.
        target: folder or URL of the export.
        tar_bytes: size that a tar does not exceed.
        seed: of the shuffle.
        place: whom to tell.

    Returns:
        `target`, `samples`, `bytes`, `store_bytes`, `ratio` and the store's `content_digest`.

    Raises:
        InputError: no whole store there, something else at the target, or not enough disk space.
        Stopped: when asked to.
    """
    store, objects = open_source(source), _open_target(target, ours=NOTE, foreign=PLAN)
    tars = TarSet.of(store.plan, tar_bytes, seed)
    _require_space(objects, {tars.name(tar): tars.size(tar) for tar in range(tars.count)}, place)
    listener = _listener(place, "export webdataset")
    index = webdataset.export_webdataset(store, objects, tar_bytes, seed, listener)
    return _result(store, objects, index)


def export_archive(source: str, target: str, place: Workplace) -> dict[str, Any]:
    """Write a store as a compressed Zarr array; arguments, result and errors as `export_webdataset`."""
    store, objects = open_source(source), _open_target(target, ours=NOTE, foreign=PLAN)
    _require_space(objects, _shard_bytes(store.plan), place)
    listener = _listener(place, "export archive")
    return _result(store, objects, archive.export_archive(store, objects, listener))


def import_webdataset(source: str, target: str, place: Workplace) -> dict[str, Any]:
    """Rebuild the store that was exported as WebDataset tars; run it again to continue.

    Args:
        source: folder or URL of the export.
        target: folder or URL of the store.
        place: whom to tell.

    Returns:
        As `export_webdataset`; `bytes` are the export's.

    Raises:
        InputError: no whole export there, something else at the target, or not enough disk space.
        Stopped: when asked to.
    """
    place_from, place_to = _open(source), _open_target(target, ours=PLAN, foreign=NOTE)
    index = _importable(place_from, place_to, webdataset.FORMAT, place)
    listener = _listener(place, "import webdataset")
    return _result(webdataset.import_webdataset(place_from, place_to, listener), place_to, index)


def import_archive(source: str, target: str, place: Workplace) -> dict[str, Any]:
    """Rebuild the store that was archived; arguments, result and errors as `import_webdataset`."""
    place_from, place_to = _open(source), _open_target(target, ours=PLAN, foreign=NOTE)
    index = _importable(place_from, place_to, archive.FORMAT, place)
    listener = _listener(place, "import archive")
    return _result(archive.import_archive(place_from, place_to, listener), place_to, index)


def open_source(source: str) -> ZarrTrajectoryStore:
    """The finished store that a person means.

    Raises:
        InputError: nothing there, several stores, or one that is not finished.
    """
    objects = _open(source)
    bare = objects.size(PLAN) is not None
    store = ZarrTrajectoryStore.open(objects) if bare else open_trajectories(_only_artefact(source))
    problems = [
        found[0] for unit in range(store.plan.units) if (found := store.unit_problems(unit, deep=store.objects.local))
    ]
    if problems:
        raise InputError(f"{source} is not whole: {len(problems)} of {store.plan.units} units missing; {problems[0]}")
    return store


def _only_artefact(source: str) -> Artefact:
    found = [] if "://" in source else [entry for entry in find_artefacts(Path(source)) if entry.stage == STAGE]
    if not found:
        raise InputError(f"{source} holds no trajectories (no {PLAN} and no artefact)")
    if len(found) > 1:
        raise InputError(f"{source} holds several trajectories; name one: {', '.join(str(e.path) for e in found)}")
    return found[0]


def _open(url: str) -> ObjectStore:
    """What is at a folder or URL.

    Raises:
        InputError: no such folder, or an URL that fsspec does not know.
    """
    if "://" not in url and not Path(url).is_dir():
        raise InputError(f"folder {url} does not exist")
    return open_objects(url)


def _open_target(url: str, ours: str, foreign: str) -> ObjectStore:
    """Where to write.

    Args:
        url: folder or URL.
        ours: the key that says that this is what an interrupted run of the same command left.
        foreign: the key that says that it is something else.

    Raises:
        InputError: something else is there, or it is no place to write to.
    """
    path = Path(url)
    if "://" not in url and path.exists() and not path.is_dir():
        raise InputError(f"{url} is not a folder")
    objects = open_objects(url)
    strangers = "://" not in url and path.is_dir() and any(map(_counts, path.iterdir()))
    if objects.size(foreign) is not None or (strangers and objects.size(ours) is None):
        raise InputError(f"{url} holds something else; name a new or empty folder")
    return objects


def _counts(path: Path) -> bool:
    """Whether a file is more than what a killed run left before it began."""
    return not path.name.startswith(".") and not path.name.endswith(".partial")


def _importable(place_from: ObjectStore, place_to: ObjectStore, kind: str, place: Workplace) -> ExportIndex:
    index = read_index(place_from, kind)
    _require_space(place_to, _shard_bytes(read_carried_plan(place_from, index)), place)
    return index


def _shard_bytes(plan: CollectionPlan) -> dict[str, int]:
    """Bytes of every shard's pairs, uncompressed, by key."""
    trajectory, layout = plan.stored_steps * plan.pair_bytes, StoreLayout(plan)
    return {layout.key(shard): plan.shard_size(shard) * trajectory for shard in range(plan.shards)}


def _require_space(objects: ObjectStore, sizes: Mapping[str, int], place: Workplace) -> None:
    if objects.local:
        missing = sum(size for key, size in sizes.items() if objects.size(key) is None)
        place.require_space(missing, f"writing {objects.url}")


def _listener(place: Workplace, job: str) -> OnProgress:
    progress = place.progress(job)

    def on_progress(done: int, total: int) -> None:
        progress(done, total, "samples")
        if done < total and place.should_stop():
            raise Stopped(f"stopped with {done} of {total} samples done; run the same command to resume")

    return on_progress


def _result(store: ZarrTrajectoryStore, target: ObjectStore, index: ExportIndex) -> dict[str, Any]:
    store_bytes = sum(shard.size for shard in store.committed_shards())
    return {
        "target": target.url,
        "samples": index.samples,
        "bytes": index.size,
        "store_bytes": store_bytes,
        "ratio": index.size / store_bytes,
        "content_digest": store.content_digest(),
    }
