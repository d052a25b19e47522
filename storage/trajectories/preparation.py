"""Preparing a store: its plan and the files that the plan vouches for, created once and never changed."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agd_core.basics.digest import canonical_json
from agd_core.data.records import CollectionPlan
from storage.errors import Damaged, OtherContent
from storage.names import PLAN
from storage.objects import ObjectStore
from storage.trajectories.plan_file import (
    ListedFile,
    listed_files,
    plan_dataset_id,
    plan_identity,
    prepared_files,
    read_plan,
    write_plan,
)


def prepare(objects: ObjectStore, plan: CollectionPlan) -> None:
    """Write plan and tables, or take up those of the same plan; what is torn of them is written again.

    Raises:
        OtherContent: the place holds a store of another plan; the message names the settings that differ.
    """
    found = _intact_plan(objects)
    if found is None:
        _write(objects, plan)
    else:
        _require_same(objects, plan, found)


def prepared_plan(objects: ObjectStore) -> CollectionPlan:
    """The plan of a store that exists.

    Raises:
        FileNotFoundError: no plan there.
        Damaged: the plan or what it vouches for is damaged.
        OtherContent: another version wrote it.
    """
    data = objects.read(PLAN)
    with _naming(objects):
        listed = listed_files(data)
    if torn := [key for key in listed if objects.size(key) != listed[key].size]:
        raise Damaged(f"{objects.url}/{torn[0]}: not what was written")
    files = {key: objects.read(key) for key in listed}
    if torn := [key for key in listed if ListedFile.of(files[key]) != listed[key]]:
        raise Damaged(f"{objects.url}/{torn[0]}: not what was written")
    return read_plan(data, files)


@contextmanager
def _naming(objects: ObjectStore) -> Iterator[None]:
    """Let the refusal of another format say where it was met."""
    try:
        yield
    except OtherContent as error:
        raise OtherContent(f"{objects.url} {error}") from error


def _intact_plan(objects: ObjectStore) -> bytes | None:
    """The bytes of the plan; None where there is none. A damaged one is deleted: the settings give it again."""
    try:
        data = objects.read(PLAN)
        with _naming(objects):
            plan_identity(data)
    except FileNotFoundError:
        return None
    except Damaged:
        objects.delete(PLAN)
        return None
    return data


def _write(objects: ObjectStore, plan: CollectionPlan) -> None:
    exclusive = objects.creates_exclusively()
    if not exclusive:
        warnings.warn(
            f"{objects.url} overwrites instead of refusing a second creation: two writers on one unit rely on leases",
            stacklevel=4,
        )
    files = prepared_files(plan, {"conditional_create": exclusive})
    if objects.create(PLAN, write_plan(plan, files)):
        for key, data in files.items():
            objects.put(key, data)
    else:
        _require_same(objects, plan, objects.read(PLAN))


def _require_same(objects: ObjectStore, plan: CollectionPlan, data: bytes) -> None:
    """Refuse a plan of another identity; write again what is torn of the preparation."""
    theirs, ours = _flat(plan_identity(data)), _flat(json.loads(canonical_json(dict(plan.identity))))
    if different := sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        shown = ", ".join(f"{name} {theirs.get(name)!r} there, {ours.get(name)!r} asked for" for name in different)
        raise OtherContent(f"{objects.url} holds other trajectories: {shown}")
    if plan_dataset_id(data) != plan.dataset_id:
        raise OtherContent(f"{objects.url} holds other trajectories: its settings agree, its plan does not")
    torn = [key for key, expected in listed_files(data).items() if not _is(objects, key, expected)]
    files = prepared_files(plan, {"conditional_create": objects.creates_exclusively()}) if torn else {}
    for key in torn:
        if ListedFile.of(files[key]) != listed_files(data)[key]:
            raise Damaged(f"{objects.url}/{key}: damaged, and this version would write it differently")
        objects.put(key, files[key])


def _is(objects: ObjectStore, key: str, expected: ListedFile) -> bool:
    try:
        return ListedFile.of(objects.read(key)) == expected
    except FileNotFoundError:
        return False


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        flat |= _flat(entry, f"{prefix}{name}.") if isinstance(entry, dict) else {f"{prefix}{name}": entry}
    return flat
