"""Where a stage works and whom it tells: output folder, device, progress, the wish to stop."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from agd_core.errors import InputError
from agd_core.progress import Progress, ShouldStop, never, silent
from storage.artefacts import FOLDER, Artefact, ArtefactStore

_CHECKSUM_BYTES = 64 << 20


@dataclass(frozen=True)
class Workplace:
    """What every stage gets beside its configuration; nothing here shapes a result."""

    output: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    announce: Callable[[str], None] = lambda line: None
    """Told in one line what is done or reused."""
    progress: Callable[[str], Progress] = lambda job: silent
    """Gives the progress listener of a named job."""
    should_stop: ShouldStop = never

    @property
    def store(self) -> ArtefactStore:
        """All stage results below the output folder."""
        return ArtefactStore(self.output / FOLDER)

    def reuses(self, artefact: Artefact) -> bool:
        """Whether a finished, intact artefact can be taken as it is; a damaged one is named and reopened."""
        if not artefact.finished:
            return False
        damage = artefact.problems(checksum_bytes=_CHECKSUM_BYTES)
        if not damage:
            self.announce(f"{artefact.stage}: cached, {artefact.path}")
            return True
        self.announce(f"{artefact.stage}: damaged, doing it again: {damage[0]}")
        artefact.reopen()
        return False

    @contextmanager
    def working_on(self, artefact: Artefact) -> Iterator[None]:
        """Hold the artefact's lock; a second run waits here. The kernel frees it when its holder dies."""
        artefact.path.mkdir(parents=True, exist_ok=True)
        with (artefact.path.parent / f".{artefact.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def require_space(self, needed_bytes: int, what: str) -> None:
        """Refuse work that the disk cannot hold.

        Raises:
            InputError: less free space than needed.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.output).free
        if free < needed_bytes:
            raise InputError(f"{what} needs {needed_bytes / 1e9:.2f} GB in {self.output}, {free / 1e9:.2f} GB are free")


def pick_device(name: str) -> torch.device:
    """The device of this name; "auto" takes a GPU where there is one.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} is not available here: {str(error).splitlines()[0]}") from error
    return device
