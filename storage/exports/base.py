"""What every export of a store shares: a note of what it is, the carried plan, and a sealed index, written last.

In the export's folder:

    export.json      which content is exported how; written first, so that an interrupted export continues
    store/...        the source's plan, conditions and schedule, byte for byte
    index.parquet    name, size, samples and crc32c of every exported object; no index, not finished
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import parse_json
from agd_core.data.records import CollectionPlan
from storage.errors import Damaged, OtherContent
from storage.names import NOTE, PLAN
from storage.objects import ObjectStore
from storage.sealed_parquet import require_columns, seal, unseal
from storage.trajectories.plan_file import ListedFile, listed_files, plan_dataset_id, read_plan
from storage.trajectories.zarr_store import ZarrTrajectoryStore

INDEX, CARRIED = "index.parquet", "store"
FORMAT_VERSION = 1
_SAID = ("format", "dataset_id", "content_digest")
"""What every note says, as text."""
_BLOCK_BYTES = 4 << 20
_SCHEMA = pa.schema([("name", pa.string()), ("size", pa.int64()), ("samples", pa.int64()), ("crc32c", pa.uint32())])

OnProgress = Callable[[int, int], None]
"""Told samples done and in total. What it raises ends the work; the same call continues it."""


@dataclass(frozen=True)
class ExportedObject:
    """One object of an export."""

    name: str
    size: int
    samples: int
    """How many (trajectory, step) pairs it holds."""
    crc32c: int
    """Of the whole object."""


@dataclass(frozen=True)
class ExportIndex:
    """A finished export: readers take what is listed here and nothing else."""

    note: Mapping[str, Any]
    objects: tuple[ExportedObject, ...]

    @property
    def samples(self) -> int:
        """Pairs of all objects."""
        return sum(entry.samples for entry in self.objects)

    @property
    def size(self) -> int:
        """Bytes of all objects."""
        return sum(entry.size for entry in self.objects)


def silent(done: int, total: int) -> None:
    """The `OnProgress` that ignores everything."""


def export_note(store: ZarrTrajectoryStore, kind: str, **settings: int) -> dict[str, Any]:
    """What identifies an export: its kind, its settings and the content of the source.

    Raises:
        Damaged: a unit of the source is missing.
    """
    identity = {"dataset_id": store.plan.dataset_id, "content_digest": store.content_digest()}
    return {"format": kind, "format_version": FORMAT_VERSION, **identity, **settings}


def begin_export(
    store: ZarrTrajectoryStore, objects: ObjectStore, note: Mapping[str, Any]
) -> dict[str, ExportedObject]:
    """Claim the place for this export and carry the plan over; what is torn of either is written again.

    Returns:
        What an index that is there already lists, by name.

    Raises:
        OtherContent: the place holds another one.
    """
    data = (json.dumps(note, indent=2) + "\n").encode()
    if objects.size(NOTE) is None:
        objects.create(NOTE, data)
    if (found := objects.read(NOTE, 0, len(data) + _BLOCK_BYTES)) != data:
        raise OtherContent(f"{objects.url} holds another export: {_difference(found, note)}")
    objects.remove_abandoned()
    plan = store.objects.read(PLAN)
    for key in (*listed_files(plan), PLAN):
        put_if_different(objects, f"{CARRIED}/{key}", store.objects.read(key))
    try:
        return {entry.name: entry for entry in read_index(objects, str(note["format"])).objects}
    except InputError:
        return {}


def finish_export(objects: ObjectStore, note: Mapping[str, Any], exported: Iterable[ExportedObject]) -> ExportIndex:
    """Write the index: from now on the export exists."""
    index = ExportIndex(note, tuple(exported))
    table = pa.Table.from_pylist([asdict(entry) for entry in index.objects], schema=_SCHEMA)
    put_if_different(objects, INDEX, seal(table, {"note": json.dumps(note)}))
    return index


def export_problems(objects: ObjectStore) -> list[str]:
    """One line per thing that is wrong with an export of any kind; empty when it is whole."""
    try:
        index = read_index(objects)
        read_carried_plan(objects, index)
    except InputError as error:
        return [str(error)]
    return [problem for entry in index.objects if (problem := object_problem(objects, entry))]


def read_index(objects: ObjectStore, kind: str | None = None) -> ExportIndex:
    """The index of a finished export, of this kind or of any.

    Raises:
        InputError: none there, or of another kind or version.
        Damaged: its bytes are not those that were written.
    """
    try:
        table, footer = unseal(objects.read(INDEX))
        note = parse_json(footer.get("note", "{}"), "note")
        require_columns(table, _SCHEMA)
        _require_note(note)
    except FileNotFoundError:
        raise InputError(f"{objects.url} holds no finished export (no {INDEX})") from None
    except InputError as error:
        raise Damaged(f"{objects.url}/{INDEX} {error}") from None
    found = (note.get("format"), note.get("format_version"))
    if found != (kind or found[0], FORMAT_VERSION):
        raise InputError(f"{objects.url} holds {found[0]} version {found[1]}, not {kind} version {FORMAT_VERSION}")
    return ExportIndex(note, tuple(ExportedObject(**row) for row in table.to_pylist()))


def _require_note(note: object) -> None:
    if not isinstance(note, dict) or not all(isinstance(note.get(name), str) for name in _SAID):
        raise Damaged("does not say what was exported")


def read_carried_plan(objects: ObjectStore, index: ExportIndex) -> CollectionPlan:
    """The plan that an export carries.

    Raises:
        Damaged: missing, damaged, of another dataset, or in the format of another version.
    """
    try:
        data = objects.read(f"{CARRIED}/{PLAN}")
        listed = listed_files(data)
        torn = [key for key in listed if objects.size(f"{CARRIED}/{key}") not in (None, listed[key].size)]
        files = {} if torn else {key: objects.read(f"{CARRIED}/{key}") for key in listed}
        torn = torn or [key for key, expected in listed.items() if ListedFile.of(files[key]) != expected]
        plan = None if torn else read_plan(data, files)
    except (FileNotFoundError, InputError) as error:
        raise Damaged(f"{objects.url}/{CARRIED}: the carried plan cannot be read: {error}") from None
    if plan is None or plan_dataset_id(data) != index.note["dataset_id"]:
        raise Damaged(f"{objects.url}/{CARRIED}/{(torn or [PLAN])[0]}: not what was written")
    return plan


def object_problem(objects: ObjectStore, entry: ExportedObject, deep: bool = True) -> str | None:
    """Why an object is not what the index says, None if it is; `deep` sums every byte."""
    if (problem := objects.size_problem(entry.name, entry.size)) or not deep:
        return problem
    whole = checksum(objects, entry.name, entry.size) == entry.crc32c
    return None if whole else f"{objects.url}/{entry.name}: checksum differs"


def checksum(objects: ObjectStore, key: str, size: int) -> int:
    """crc32c of a whole object, read block by block."""
    crc = 0
    for start in range(0, size, _BLOCK_BYTES):
        crc = google_crc32c.extend(crc, objects.read(key, start, min(_BLOCK_BYTES, size - start)))
    return crc


def put_if_different(objects: ObjectStore, key: str, data: bytes) -> None:
    """Write an object unless these bytes are there already."""
    if objects.size(key) != len(data) or objects.read(key) != data:
        objects.put(key, data)


def rebuild_store(
    objects: ObjectStore,
    plan: CollectionPlan,
    content_digest: str,
    latents: Callable[[int], np.ndarray],
    on_progress: OnProgress,
) -> ZarrTrajectoryStore:
    """Write an exported store again, unit by unit; committed units are kept.

    Args:
        objects: where the store is to be.
        plan: what the export carries.
        content_digest: of the store that was exported.
        latents: the pairs of one trajectory, `[stored_steps, K, C, H, W]`.
        on_progress: told after every unit.

    Raises:
        OtherContent: another store is there.
        Damaged: the rebuilt store's content is not what was exported.
    """
    store = ZarrTrajectoryStore.prepare(objects, plan, device="import")
    missing = store.missing_units()
    done = plan.pairs - sum(len(plan.unit(unit)) for unit in missing) * plan.stored_steps
    for unit in missing:
        on_progress(done, plan.pairs)
        with store.write_unit(unit) as writer:
            for trajectory in writer.wanted:
                for slot, pair in enumerate(latents(trajectory.index)):
                    writer.put(trajectory.index, slot, pair)
        done += len(plan.unit(unit)) * plan.stored_steps
    on_progress(done, plan.pairs)
    if store.content_digest() != content_digest:
        raise Damaged(f"{objects.url}: its content is not what was exported")
    return store


def blocks(count: int, item_bytes: int) -> Iterator[range]:
    """`range(count)` in pieces of a few megabytes."""
    step = max(1, _BLOCK_BYTES // item_bytes)
    return (range(first, min(first + step, count)) for first in range(0, count, step))


def _difference(found: bytes, note: Mapping[str, Any]) -> str:
    try:
        theirs = parse_json(found, NOTE)
        names = [name for name in note if theirs.get(name) != note[name]]
    except (ValueError, AttributeError):
        return f"its {NOTE} cannot be read"
    return ", ".join(f"{name} {theirs.get(name)!r} there, {note[name]!r} asked for" for name in names)
