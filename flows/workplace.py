"""Where a stage works and whom it tells: output folder, device, progress, the wish to stop."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from agd_core.basics.errors import InputError, first_line
from agd_core.basics.home import expand
from agd_core.basics.progress import Progress, ShouldStop, Stopped, never, silent
from agd_core.basics.safe_files import confined, printable
from flows.machine.device_lease import hold_device
from flows.machine.file_lock import opened_lock, try_lock, wait_until
from storage.artefacts import ARTEFACTS, Artefact, ArtefactStore
from storage.walking import strangers_below

_CHECKSUM_BYTES = 64 << 20
_KILOBYTE, _MEGABYTE = 1e3, 1e6
_SMALL = 10
"""Below so many megabytes a size is told in kilobytes."""


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

    def produce(
        self,
        stage: str,
        identity: dict[str, Any],
        work: Callable[[Artefact], None],
        measured: Collection[str] = (),
        check: Callable[[Artefact], list[str]] = lambda artefact: [],
        title: str = "",
    ) -> Artefact:
        """The artefact of this stage and identity: the finished one if it is intact, else what `work` makes of it.

        One run works on an artefact at a time; a second one waits and then finds it finished.

        Args:
            stage: the stage's name.
            identity: plain data; everything that shapes the result and nothing else.
            work: fills the artefact's folder, taking over what an interrupted run left there.
            measured: files that hold measured times, see `Artefact.finish`.
            check: names what is wrong with a finished artefact beyond its manifest.
            title: what is done, in words, for those who show it.
        """
        artefact = ArtefactStore(self.output / ARTEFACTS).artefact(stage, identity)
        with self._alone_with(artefact):
            if not self._reuses(artefact, check):
                work(artefact)
                artefact.finish(identity, measured)
        return artefact

    @contextmanager
    def on_device(self, what: str) -> Iterator[None]:
        """Hold the device for a piece of work, named in words, as the only process on this machine.

        Lock order: first the artefact (`produce`), then the device. Nothing inside may wait for an artefact, and work
        that needs no device, such as statistics or a report, stays outside.

        Raises:
            InputError: the lease cannot be used, see `flows.machine.device_lease`.
            Stopped: asked to, while waiting.
        """
        with hold_device(self.device, what, self.announce, self.should_stop):
            yield

    def each_unit(self, units: Sequence[int], run: Callable[[int], None], store_url: str) -> Iterator[int]:
        """Do units of work and yield the number of each that is done, in any order.

        Args:
            units: the numbers of the units to do.
            run: does one of them in this process.
            store_url: where the store is, for those who do units in other processes.

        Raises:
            Stopped: when asked to, between two units.
        """
        for unit in units:
            if self.should_stop():
                raise Stopped("stopped between two units of work; run the same command again to resume")
            run(unit)
            yield unit

    def sample_ahead(self, adapters: Sequence[Any], points: Sequence[Any]) -> None:
        """Called with the adapters and points of `flows.stages.comparison` before their sample sets are asked for.

        Here nothing is done: they are sampled when they are asked for.
        """

    def require_space(self, needed_bytes: int, what: str, folder: Path | None = None) -> None:
        """Refuse work that the disk cannot hold: the one of this folder, or of the output.

        Raises:
            InputError: less free space than needed.
        """
        folder = folder or self.output
        free = shutil.disk_usage(folder).free
        if free < needed_bytes:
            raise InputError(f"{what} needs {_in_words(needed_bytes)} in {folder}, {_in_words(free)} are free")

    def _reuses(self, artefact: Artefact, check: Callable[[Artefact], list[str]]) -> bool:
        """Whether the artefact is finished and intact; a damaged one is named and reopened."""
        if not artefact.started:
            return False
        damage = artefact.problems(checksum_bytes=_CHECKSUM_BYTES) or check(artefact)
        if not damage:
            self.announce(f"{artefact.stage}: cached, {artefact.path}")
            return True
        self.announce(f"{artefact.stage}: damaged, doing it again: {damage[0]}")
        artefact.reopen()
        return False

    @contextmanager
    def _alone_with(self, artefact: Artefact) -> Iterator[None]:
        """Hold the artefact's file lock; what is finished in a folder that cannot be written to needs none.

        Raises:
            InputError: a link is on the way, or something inside is no file: the folder may come from anybody, and work
                would follow it out or wait for ever; or it cannot be written to and the artefact is not finished.
        """
        folder = confined(self.output, f"{ARTEFACTS}/{artefact.path.name}")
        read_only = self.output.exists() and not os.access(self.output, os.W_OK)
        with self._read_only(artefact) if read_only else self._locked(folder):
            if stranger := next(strangers_below(artefact.path), None):
                raise InputError(f"{printable(stranger)} is a link, a pipe or a device; no artefact has one: delete it")
            yield

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        """The kernel frees the lock when its holder dies."""
        folder.mkdir(parents=True, exist_ok=True)
        with opened_lock(folder.parent / f".{folder.name}.lock") as lock:
            wait_until(lambda: try_lock(lock), lambda: f"another run on {folder}", self.announce, self.should_stop)
            for abandoned in folder.glob("*.partial"):  # by a run that was killed: nobody else works here now
                abandoned.unlink()
            yield

    @contextmanager
    def _read_only(self, artefact: Artefact) -> Iterator[None]:
        if not artefact.finished:
            raise InputError(
                f"output folder {self.output} cannot be written to, and {artefact.stage} is not done there"
            )
        yield


def output_folder(path: Path) -> Path:
    """The folder, made where it is missing; one that holds artefacts may be read-only: what is finished is reused.

    Raises:
        InputError: its name is not UTF-8, or it cannot be made or written to.
    """
    if not _is_text(path):
        raise InputError(f"output folder {path} has a name that is not UTF-8; choose another one")
    try:
        path = expand(path)
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"output {path} is not a folder that can be made: {first_line(error)}") from error
    if not os.access(path, os.W_OK) and not (path / ARTEFACTS).is_dir():
        raise InputError(f"output folder {path} cannot be written to")
    return path


def _is_text(path: Path) -> bool:
    """Whether a name can stand in JSON, HTML and Zarr metadata, which are UTF-8."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_words(size: int) -> str:
    return f"{size / _MEGABYTE:,.0f} MB" if size >= _SMALL * _MEGABYTE else f"{size / _KILOBYTE:,.1f} kB"


def pick_device(name: str) -> torch.device:
    """The device of this name; "auto" takes a GPU where there is one.

    Raises:
        InputError: no such device here.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not index.isdigit()):
        raise InputError(f"unknown device {name!r}; allowed: auto, cpu, cuda, cuda:N")
    if kind == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r} is not available here: {torch.cuda.device_count()} CUDA devices found")
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """The device in words, for measured times."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {os.uname().machine}, {torch.get_num_threads()} threads"
