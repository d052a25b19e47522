"""Check the checksums of everything below a folder, and delete what is torn where that is asked for."""

from pathlib import Path
from typing import Any

from agd_core.basics.digest import digest
from agd_core.basics.errors import InputError
from agd_core.basics.home import expand
from agd_core.basics.safe_files import printable
from flows.published import published_folders, published_problems
from storage.artefacts import Artefact, find_artefacts
from storage.names import LOCATION, NOTE, PLAN
from storage.walking import links_below

_MOST_LINKS = 20
"""That are named; more are counted."""


def verify(folder: Path, repair: bool = False, follow: str | None = None) -> dict[str, Any]:
    """Read every file of every artefact at or below a folder and every file published there, and nothing outside.

    Args:
        folder: an output folder, one artefact, an adapter's folder, a store or an export; a torn export is mended by
            exporting again, and what was published by running its command again.
        repair: delete what is torn of artefacts and stores, and nothing else; running the stage again makes it anew.
        follow: the place, outside of the folder, where its trajectories may be looked for (`store.url`).

    Returns:
        `ok`, `digest` (identity of all artefacts, the same for equal runs), `artefacts` (how many), `published` (how
        many folders with reports or adapters), `problems` (one line per missing, torn, altered or unfinished thing),
        `unchecked` (one line per thing that lies outside of the folder and was not looked at) and `deleted`.

    Raises:
        InputError: no such folder, not readable, or nothing of ours in it.
    """
    try:
        if not folder.is_dir():
            raise InputError(f"folder {printable(folder)} does not exist")
        if (folder / PLAN).exists() or (folder / NOTE).exists():
            from flows.stages.verify_store import verify_store

            return verify_store(folder, repair)
        return _verify_output(folder, repair, follow and _absolute(follow))
    except OSError as error:
        raise InputError(f"folder {printable(folder)} cannot be read: {error}") from error


def _verify_output(folder: Path, repair: bool, follow: str | None) -> dict[str, Any]:
    artefacts, published, unchecked = find_artefacts(folder), published_folders(folder), _links(folder)
    if not artefacts and not published:
        nothing = "no artefacts (nothing with a manifest.json), no store, no export, no report and no adapter"
        raise InputError("; ".join([f"folder {printable(folder)} holds {nothing}", *unchecked[:1]]))
    found = {artefact.path: _problems(artefact, follow, unchecked) for artefact in artefacts}
    damaged = [artefact for artefact in artefacts if found[artefact.path]]
    deleted = [name for artefact in damaged for name in _repair(artefact, follow)] if repair else []
    problems = [problem for lines in found.values() for problem in lines]
    problems += [problem for place in published for problem in published_problems(place)]
    content = sorted(artefact.digest for artefact in artefacts if artefact.finished)
    return {
        "ok": not problems,
        "digest": digest(content),
        "artefacts": len(artefacts),
        "published": len(published),
        "problems": problems,
        "unchecked": unchecked,
        "deleted": deleted,
    }


def _absolute(place: str) -> str:
    """A folder as `store.url` has it."""
    return place if "://" in place else str(expand(place).resolve())


def _links(folder: Path) -> list[str]:
    """One line per link in a folder: what it leads to is not read."""
    links = sorted(links_below(folder))
    lines = [f"{path} is a link: what it leads to was not checked" for path in links[:_MOST_LINKS]]
    more = len(links) - len(lines)
    return [*lines, f"{more} more links: what they lead to was not checked"] if more else lines


def _problems(artefact: Artefact, follow: str | None, unchecked: list[str]) -> list[str]:
    """What is wrong with an artefact and its store; a store that lies elsewhere is entered as unchecked."""
    found = artefact.problems()
    if not (artefact.path / LOCATION).exists():
        return found
    from flows.stages.trajectories import NotNamed, trajectory_problems

    try:
        return found + trajectory_problems(artefact, follow, deep=True)
    except NotNamed as error:
        unchecked.append(str(error))
        return found


def _repair(artefact: Artefact, follow: str | None) -> list[str]:
    """Delete the torn files of a damaged artefact and declare it unfinished."""
    deleted = [*artefact.delete_torn(), *_repair_store(artefact, follow)]
    artefact.reopen()
    return [f"{artefact.path}: {name}" for name in deleted]


def _repair_store(artefact: Artefact, follow: str | None) -> list[str]:
    if not (artefact.path / LOCATION).exists():
        return []
    from flows.stages.trajectories import repair_trajectories

    return repair_trajectories(artefact, follow)
