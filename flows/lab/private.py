"""The lab's home is its owner's alone, and so is its password."""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from agd_core.basics.errors import InputError

USER = "agd"
"""Who logs in; there is one password and no other user."""
PASSWORD_FILE = "password"  # noqa: S105 its name
_BYTES = 24
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def close_to_others(home: Path, folder: Path) -> None:
    """Take from everybody but the owner what lies in a lab's home: database, results, logs, password.

    Args:
        home: closed itself, with the files that lie in it.
        folder: one more such folder, of the lab's own files.

    Raises:
        InputError: it is somebody else's and open.
    """
    for path in (home, folder, *home.iterdir(), *folder.iterdir()):
        status = path.lstat()
        if status.st_mode & _OTHERS and not stat.S_ISLNK(status.st_mode):
            try:
                path.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise InputError(f"{path} is open to other users and cannot be closed: {error.strerror}") from error


def make_password(folder: Path) -> None:
    """Make a password at the first start, in a file that its owner alone can read.

    Raises:
        OSError: the file cannot be written.
    """
    if read_password(folder):
        return
    path = folder / PASSWORD_FILE
    with suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(_BYTES) + "\n")


def read_password(folder: Path) -> str | None:
    """user:password of the lab whose files are in this folder; None before its first start."""
    try:
        password = (folder / PASSWORD_FILE).read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return f"{USER}:{password}" if password else None
