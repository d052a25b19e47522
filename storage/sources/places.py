"""Which files a person means: one file, a folder of files, or a pattern such as `shard-{0000..0012}.tar`.

A name that is there is taken as it stands. So of a pattern the folders in front that are there are no pattern:
`photos [v2]/part-*.tar` means the files in the folder `photos [v2]`.
"""

import os
import re
from collections.abc import Iterator
from glob import escape, glob
from pathlib import Path

from agd_core.basics.errors import InputError
from agd_core.basics.home import expand
from agd_core.basics.safe_files import printable, require_regular

_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}")


def named_files(place: str, suffix: str) -> list[Path]:
    """The files of a place, in order: those of a folder and of a pattern by name, those of a range by number.

    Args:
        place: a file, a folder with files of this suffix (not deeper), or a pattern with `*`, `?`, `[...]` and
            ranges `{first..last}`, padded with zeros as their first number is.
        suffix: such as ".tar".

    Raises:
        InputError: there is no such file, or one is no regular file.
    """
    path = expand(place)
    if os.path.isdir(path):
        found = sorted(file for file in path.glob(f"*{suffix}") if not file.name.startswith("."))
    else:
        found = [file for name in _expanded(*_parted(str(path))) for file in _matching(*name)]
    for file in found:
        require_regular(file)
    return found


def _parted(name: str) -> tuple[str, str]:
    """What of a path is there, and the rest, which may be a pattern."""
    there, rest = name, ""
    while there and not os.path.exists(there):
        there, _, last = there.rpartition("/")
        rest = f"/{last}{rest}" if name.startswith("/") or there else f"{last}{rest}"
    return there, rest


def _expanded(there: str, rest: str) -> Iterator[tuple[str, str]]:
    match = _RANGE.search(rest)
    if match is None:
        yield there, rest
        return
    first, last = match.groups()
    for number in range(int(first), int(last) + 1):
        yield from _expanded(there, f"{rest[: match.start()]}{number:0{len(first)}d}{rest[match.end() :]}")


def _matching(there: str, rest: str) -> list[Path]:
    name = there + rest
    if os.path.exists(name):
        return [Path(name)]
    if found := sorted(glob(escape(there) + rest)):
        return [Path(file) for file in found]
    raise InputError(f"{printable(name)} does not exist")
