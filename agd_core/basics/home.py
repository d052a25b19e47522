"""The user's own folder, for "~" in paths and for the cache. A user id without an entry and without HOME has none."""

import os
from pathlib import Path

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable


def expand(path: str | Path) -> Path:
    """The path with a leading "~" or "~user" replaced.

    Raises:
        InputError: nobody knows that folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        reason = "the home folder that ~ stands for is not known; set HOME or write the whole path"
        raise InputError(f"{printable(path)}: {reason}") from error


def cache_folder() -> Path:
    """$XDG_CACHE_HOME, else ~/.cache.

    Raises:
        InputError: neither is known.
    """
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named)
    try:
        return Path.home() / ".cache"
    except RuntimeError as error:
        raise InputError("no folder for the cache: this user has no home; set HOME or XDG_CACHE_HOME") from error
