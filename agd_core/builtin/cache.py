"""Models that this package writes instead of shipping them, each kept in a folder of the user's cache."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from agd_core.basics.errors import InputError, first_line
from agd_core.basics.home import cache_folder

_MODEL_INDEX = "model_index.json"


def cached_folder(place: str, what: str, write: Callable[[Path], None]) -> Path:
    """A model's folder under $XDG_CACHE_HOME (or ~/.cache), written at the first call.

    Any number of processes may ask at once; a folder that is there is whole.

    Args:
        place: below the cache's folder of this package; another content has another place.
        what: it is, for messages.
        write: writes the model into a folder.

    Raises:
        InputError: a cache that cannot be written.
    """
    folder = cache_folder() / "agd-pipeline" / place
    if not (folder / _MODEL_INDEX).is_file():
        try:
            write_at_once(folder, write)
        except OSError as error:
            reason = f"{error.strerror or first_line(error)}; set XDG_CACHE_HOME to a folder that can be written"
            raise InputError(f"cannot write {what} to {folder.parent}: {reason}") from error
    return folder


def write_at_once(folder: Path, write: Callable[[Path], None]) -> None:
    """Into a temporary sibling, then renamed; whoever is second finds the first one's folder.

    Raises:
        OSError: no space, no permission, a disk that fails.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        made = Path(temporary) / folder.name
        write(made)
        try:
            os.rename(made, folder)
        except OSError:
            if not (folder / _MODEL_INDEX).is_file():
                raise
