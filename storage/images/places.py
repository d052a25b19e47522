"""Which files a person means: one file, a folder of files, or a pattern such as `shard-{0000..0012}.tar`."""

import re
from collections.abc import Iterator
from glob import glob
from pathlib import Path

from storage.images.problems import ImageProblem

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_WILD = re.compile(r"[*?\[]")


def named_files(place: str, suffix: str) -> list[Path]:
    """The files of a place, in order: those of a folder and of a pattern by name, those of a range by number.

    Args:
        place: a file, a folder with files of this suffix (not deeper), or a pattern with `*`, `?`, `[...]` and
            ranges `{first..last}`, padded with zeros as their first number is.
        suffix: such as ".tar".

    Raises:
        ImageProblem: there is no such file.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        return sorted(found for found in path.glob(f"*{suffix}") if not found.name.startswith("."))
    if path.exists():
        return [path]
    return [file for name in _expanded(str(path)) for file in _matching(name)]


def _expanded(name: str) -> Iterator[str]:
    match = _RANGE.search(name)
    if match is None:
        yield name
        return
    first, last = match.groups()
    for number in range(int(first), int(last) + 1):
        yield from _expanded(f"{name[: match.start()]}{number:0{len(first)}d}{name[match.end() :]}")


def _matching(name: str) -> list[Path]:
    found = sorted(glob(name)) if _WILD.search(name) else [name]
    if missing := [file for file in found or [name] if not Path(file).is_file()]:
        raise ImageProblem(f"images {missing[0]} do not exist")
    return [Path(file) for file in found]
