"""Check a trajectory store or an export that lies by itself."""

from pathlib import Path
from typing import Any

from agd_core.basics.digest import digest
from storage.exports.base import export_problems, read_index
from storage.names import PLAN
from storage.objects import LocalObjects
from storage.trajectories.verification import repair_store, store_problems
from storage.trajectories.zarr_store import ZarrTrajectoryStore


def verify_store(folder: Path, repair: bool) -> dict[str, Any]:
    """What `flows.stages.verify.verify` answers, of a store or an export that is no artefact."""
    objects = LocalObjects(folder)
    if objects.size(PLAN) is not None:
        problems = store_problems(objects)
        deleted = repair_store(objects) if repair and problems else []
    else:
        problems, deleted = export_problems(objects), []
    content = digest(sorted(objects.keys(""))) if problems else _content(objects)
    return {
        "ok": not problems,
        "digest": content,
        "artefacts": 1,
        "published": 0,
        "problems": problems,
        "unchecked": [],
        "deleted": deleted,
    }


def _content(objects: LocalObjects) -> str:
    """Content digest of a whole store, or of the store that was exported."""
    if objects.size(PLAN) is not None:
        return ZarrTrajectoryStore.open(objects).content_digest()
    return str(read_index(objects).note["content_digest"])
