"""What a person sees while a stage works: lines on standard error and one progress bar with time left."""

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from agd_core.basics import progress as core
from agd_core.basics.safe_files import printable
from flows.machine.stop_signals import StopSignals

_PLAIN_SECONDS = 15.0


class Terminal:
    """Announces lines and shows progress; turns the first Ctrl-C or SIGTERM into a wish to stop.

    As a context manager it installs the signal handlers and draws the bar; on a pipe it prints a plain line
    now and then instead.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
        )
        notice = "stopping at the next safe point; press Ctrl-C again to stop at once"
        self._signals = StopSignals(lambda: self.announce(notice))

    def __enter__(self) -> Self:
        self._signals.__enter__()
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
        self._signals.__exit__(*exception)

    def announce(self, line: str) -> None:
        """Print one line."""
        self._console.print(printable(line), soft_wrap=True, markup=False, emoji=False)

    def progress(self, job: str) -> core.Progress:
        """The listener of one job: a bar on a terminal, a line every 15 seconds elsewhere."""
        if self._bar.disable:
            return _PlainProgress(self, job)
        return _BarProgress(self._bar, job)

    def should_stop(self) -> bool:
        """Whether the person asked to stop."""
        return self._signals.stopping


class _BarProgress:
    def __init__(self, bar: Progress, job: str) -> None:
        self._bar = bar
        self._task: TaskID = bar.add_task(job, total=None, note="")

    def __call__(self, done: int, total: int, note: str = "") -> None:
        self._bar.update(self._task, completed=done, total=total, note=note, visible=done < total)


class _PlainProgress:
    def __init__(self, terminal: Terminal, job: str) -> None:
        self._terminal = terminal
        self._job = job
        self._started = self._printed = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = done, now
        elif now - self._printed >= _PLAIN_SECONDS:
            self._printed = now
            left = (now - self._started) / (done - self._first) * (total - done)
            self._terminal.announce(f"  {self._job}: {done} of {total} {note}, about {left:.0f} s left")
