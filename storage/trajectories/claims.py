"""Hints which unit of work somebody is busy with, so that collectors who share a store take different ones.

    <root>/claims/u-<unit>    host and process of a collector; created exclusively, deleted when the unit is done

Nothing depends on a claim: it keeps nobody from writing a unit, and one that a dead collector left only puts its unit
last. What is true is said by the commit markers.
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from storage.objects import ObjectStore

CLAIMS = "claims"


@contextmanager
def claimed(objects: ObjectStore, unit: int) -> Iterator[bool]:
    """Claim a unit for the block; False if another collector has it, who may be alive."""
    key, ours = f"{CLAIMS}/u-{unit:06d}", f"{platform.node()} {os.getpid()}"
    free = objects.create(key, ours.encode()) or _taken_from_the_dead(objects, key, ours)
    try:
        yield free
    finally:
        if free:
            objects.delete(key)


def clear_claims(objects: ObjectStore) -> None:
    """Delete every claim: for a store that is finished."""
    for key in objects.keys(CLAIMS):
        objects.delete(key)


def _taken_from_the_dead(objects: ObjectStore, key: str, ours: str) -> bool:
    """Take a claim over from a collector on this host that does not run any more."""
    try:
        theirs = objects.read(key).decode()
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    host, _, process = theirs.rpartition(" ")
    if theirs != ours and (host != platform.node() or not process.isdigit() or _runs(int(process))):
        return False
    objects.put(key, ours.encode())
    return True


def _runs(process: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True
