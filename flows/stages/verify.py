"""Check the checksums of everything below a folder, and delete what is torn where that is asked for."""

from pathlib import Path
from typing import Any

from agd_core.digest import digest
from agd_core.errors import InputError
from flows.stages.trajectories import repair_trajectories, trajectory_problems
from storage.artefacts import Artefact, find_artefacts


def verify(folder: Path, repair: bool = False) -> dict[str, Any]:
    """Read every file of every artefact at or below a folder.

    Args:
        folder: an output folder or one artefact.
        repair: delete what is torn, and nothing else; running the stage again makes it anew.

    Returns:
        `ok`, `digest` (identity of all content, the same for equal runs), `artefacts` (how many), `problems`
        (one line per missing, torn, altered or unfinished thing) and `deleted`.

    Raises:
        InputError: no such folder, or nothing of ours in it.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist")
    artefacts = find_artefacts(folder)
    if not artefacts:
        raise InputError(f"folder {folder} holds no artefacts (nothing with a manifest.json)")
    found = {artefact.path: artefact.problems() + trajectory_problems(artefact, deep=True) for artefact in artefacts}
    damaged = [artefact for artefact in artefacts if found[artefact.path]]
    deleted = [name for artefact in damaged for name in _repair(artefact)] if repair else []
    problems = [problem for lines in found.values() for problem in lines]
    content = sorted(artefact.digest for artefact in artefacts if artefact.finished)
    return {
        "ok": not problems,
        "digest": digest(content),
        "artefacts": len(artefacts),
        "problems": problems,
        "deleted": deleted,
    }


def _repair(artefact: Artefact) -> list[str]:
    """Delete the torn files of a damaged artefact and declare it unfinished."""
    deleted = [*artefact.delete_torn(), *repair_trajectories(artefact)]
    artefact.reopen()
    return [f"{artefact.path}: {name}" for name in deleted]
