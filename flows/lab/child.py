"""A Prefect process that `agd up` keeps: in a session of its own, its output in a file, never left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from agd_core.basics.parent_death import die_with_parent
from flows.lab.lab import Lab

_POLL_SECONDS = 0.1
_TAIL_LINES = 8
_OWNER_ONLY, _AS_IT_IS = 0o077, -1


class Child:
    """A command of Prefect as a child process that can be started again.

    Args:
        lab: gives it its environment.
        name: names its log file.
        module: what Python runs, and `arguments` for it.
        if_orphaned: what it gets when `agd up` dies without stopping it.
        private: whether what it writes is for its owner alone.
    """

    def __init__(
        self,
        lab: Lab,
        name: str,
        module: str,
        arguments: Sequence[str],
        if_orphaned: signal.Signals,
        private: bool = False,
    ) -> None:
        self.name = name
        self.log = lab.folder / f"{name}.log"
        self._lab = lab
        self._command = (sys.executable, "-m", module, *arguments)
        self._if_orphaned = if_orphaned
        self._umask = _OWNER_ONLY if private else _AS_IT_IS
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id, which is also its session's."""
        if self._process is None:
            raise RuntimeError(f"the {self.name} was not started")
        return self._process.pid

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        code = self._process.returncode if self._process else None
        return signal.Signals(-code).name if code and code < 0 else f"exit code {code}"

    def was_killed(self, seconds: float) -> bool:
        """Whether a signal ended it; one that is dying is waited for."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(seconds) < 0
        return False

    def start(self) -> None:
        """Start it; the terminal's Ctrl-C does not reach it, SIGINT and SIGTERM do, whoever started us."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 our own command
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._lab.folder,
                env=self._lab.environment(),
                umask=self._umask,
                start_new_session=True,
                preexec_fn=partial(_settle, self._if_orphaned, os.getpid()),  # noqa: PLW1509 two system calls, no locks
            )

    def stop(self, seconds: float) -> None:
        """SIGTERM and, if it is still there after this time, SIGKILL to all of its session."""
        if not self.alive:
            return
        os.kill(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if self.alive:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to all of its session, now."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def last_lines(self) -> str:
        """The end of its log."""
        return last_lines(self.log)


def last_lines(log: Path) -> str:
    """The end of a log, indented for the terminal."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return "\n".join(f"  {line}" for line in text.splitlines()[-_TAIL_LINES:])


def _settle(if_orphaned: signal.Signals, parent: int) -> None:
    """In the child: a script that starts us with & has made SIGINT ignored, and Prefect stops by SIGINT."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    die_with_parent(if_orphaned, parent)
