"""Check the checksums of everything below a folder."""

from pathlib import Path
from typing import Any

from agd_core.digest import digest
from agd_core.errors import InputError
from storage.artefacts import find_artefacts


def verify(folder: Path) -> dict[str, Any]:
    """Read every file of every artefact at or below a folder.

    Returns:
        `ok`, `digest` (identity of all content, the same for equal runs), `artefacts` (how many) and `problems`
        (one line per missing, torn, altered or unfinished thing).

    Raises:
        InputError: no such folder, or nothing of ours in it.
    """
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist")
    artefacts = find_artefacts(folder)
    if not artefacts:
        raise InputError(f"folder {folder} holds no artefacts (nothing with a manifest.json)")
    problems = [problem for artefact in artefacts for problem in artefact.problems()]
    content = sorted(artefact.digest for artefact in artefacts if artefact.finished)
    return {"ok": not problems, "digest": digest(content), "artefacts": len(artefacts), "problems": problems}
