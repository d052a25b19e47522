"""Check the checksums of everything below a folder, and delete what is torn where that is asked for."""

from pathlib import Path
from typing import Any

from agd_core.digest import digest
from agd_core.errors import InputError
from flows.published import published_folders, published_problems
from storage.artefacts import Artefact, find_artefacts
from storage.names import LOCATION, NOTE, PLAN


def verify(folder: Path, repair: bool = False) -> dict[str, Any]:
    """Read every file of every artefact at or below a folder, and every file that was published there.

    Args:
        folder: an output folder, one artefact, an adapter's folder, a store or an export; a torn export is mended by
            exporting again, and what was published by running its command again.
        repair: delete what is torn of artefacts and stores, and nothing else; running the stage again makes it anew.

    Returns:
        `ok`, `digest` (identity of all artefacts, the same for equal runs), `artefacts` (how many), `published` (how
        many folders with reports or adapters), `problems` (one line per missing, torn, altered or unfinished thing)
        and `deleted`.

    Raises:
        InputError: no such folder, or nothing of ours in it.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist")
    if (folder / PLAN).exists() or (folder / NOTE).exists():
        from flows.stages.verify_store import verify_store

        return verify_store(folder, repair)
    artefacts, published = find_artefacts(folder), published_folders(folder)
    if not artefacts and not published:
        raise InputError(
            f"folder {folder} holds no artefacts (nothing with a manifest.json), no store, no export, no report and no "
            "adapter"
        )
    found = {artefact.path: _problems(artefact) for artefact in artefacts}
    damaged = [artefact for artefact in artefacts if found[artefact.path]]
    deleted = [name for artefact in damaged for name in _repair(artefact)] if repair else []
    problems = [problem for lines in found.values() for problem in lines]
    problems += [problem for place in published for problem in published_problems(place)]
    content = sorted(artefact.digest for artefact in artefacts if artefact.finished)
    return {
        "ok": not problems,
        "digest": digest(content),
        "artefacts": len(artefacts),
        "published": len(published),
        "problems": problems,
        "deleted": deleted,
    }


def _problems(artefact: Artefact) -> list[str]:
    if not (artefact.path / LOCATION).exists():
        return artefact.problems()
    from flows.stages.trajectories import trajectory_problems

    return artefact.problems() + trajectory_problems(artefact, deep=True)


def _repair(artefact: Artefact) -> list[str]:
    """Delete the torn files of a damaged artefact and declare it unfinished."""
    deleted = [*artefact.delete_torn(), *_repair_store(artefact)]
    artefact.reopen()
    return [f"{artefact.path}: {name}" for name in deleted]


def _repair_store(artefact: Artefact) -> list[str]:
    if not (artefact.path / LOCATION).exists():
        return []
    from flows.stages.trajectories import repair_trajectories

    return repair_trajectories(artefact)
