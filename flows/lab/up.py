"""`agd up`: a Prefect server, the pool, the deployments and one worker, kept going until somebody stops them."""

import fcntl
import json
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from httpx import HTTPError, TransportError
from prefect.exceptions import PrefectException

from agd_core.basics.atomic import write_bytes
from agd_core.basics.progress import Announce, ShouldStop, Stopped
from flows.lab.automations import install_automations
from flows.lab.child import Child
from flows.lab.deploying import deploy_all
from flows.lab.drain import DRAIN_SECONDS, drain, undo_drain
from flows.lab.flow_processes import end_all
from flows.lab.lab import Lab, LabError
from flows.lab.pool import POOL, prepare_pool, worker_of
from flows.lab.reconcile import free_pool
from flows.lab.server import ServerDied, await_server, server_of
from flows.lab.watch import RunWatch
from flows.machine.stop_signals import StopSignals

_WATCH_SECONDS = 0.5
_LOOK_SECONDS = 2.0
_DYING_SECONDS = 2.0
_STOP_SECONDS = 30.0
_PREDECESSOR_SECONDS = 60.0
_QUICK_DEATHS = 5
_QUICK_SECONDS = 120.0


def up(lab: Lab, notify_url: str | None, announce: Announce) -> None:
    """Keep the lab up until SIGINT or SIGTERM, then let its runs checkpoint and stop it.

    Args:
        lab: where it lives and answers.
        notify_url: told of regressions; None leaves what an earlier start set.
        announce: gets lines for a person.

    Raises:
        InputError: the port is taken, or the home is no folder to write to.
        LabError: server or worker do not start, or do not stay.
    """
    lab.make_folder()
    with _sole_keeper(lab) as alone:
        if not alone:
            announce(_who_is_up(lab))
            return
        _await_predecessor(lab, announce)
        lab.require_free_port()
        with StopSignals() as signals:
            _Keeper(lab, notify_url, announce, lambda: signals.stopping).keep()


class _Keeper:
    """Starts, watches and stops the two processes of a lab."""

    def __init__(self, lab: Lab, notify_url: str | None, announce: Announce, should_stop: ShouldStop) -> None:
        self._lab = lab
        self._notify_url = notify_url
        self._announce = announce
        self._should_stop = should_stop
        self._server = server_of(lab)
        self._worker = worker_of(lab)
        self._runs = RunWatch(lab, announce)
        self._next_look = 0.0
        self._deaths: deque[float] = deque(maxlen=_QUICK_DEATHS)

    def keep(self) -> None:
        """All of a lab's life."""
        try:
            while not self._started():
                self._count_death(self._server)
            while not self._should_stop():
                self._revive()
                self._look()
                time.sleep(_WATCH_SECONDS)
            self._drain()
        except (Stopped, KeyboardInterrupt) as stop:
            self._announce(str(stop) or "interrupted")
        except HTTPError as error:
            raise LabError(f"the server does not answer as it should: {error}") from error
        finally:
            self._stop()

    def _started(self) -> bool:
        """Start everything; whether that worked. A server that was killed meanwhile can be started again."""
        try:
            self._start()
        except (HTTPError, LabError):
            if not self._server.was_killed(_DYING_SECONDS):
                raise
            return False
        return True

    def _start(self) -> None:
        self._step(f"starting the Prefect server, log in {self._server.log}")
        self._start_server()
        with self._lab.client() as client:
            self._step(f"preparing the work pool {POOL!r}")
            prepare_pool(client)
            self._step("registering the deployments")
            deploy_all(self._lab)
            self._step("installing the automations")
            install_automations(client, self._lab, self._notify_url, self._announce)
            free_pool(client, self._lab, self._announce)
            undo_drain(client, self._lab, self._announce)
        self._step(f"starting the worker, log in {self._worker.log}")
        self._worker.start()
        self._leave_note(up=True)
        self._announce(f"up: {self._lab.ui_url}")
        for line in self._lab.how_to_log_in():
            self._announce(line)
        self._announce(f"open it, choose a deployment, press Run; relative outputs land in {self._lab.work_folder}")
        self._announce("Ctrl-C lets the running job checkpoint and stops everything; the next `agd up` goes on with it")

    def _step(self, line: str) -> None:
        if self._should_stop():
            raise Stopped("stopped before everything was started")
        self._announce(line)

    def _start_server(self) -> None:
        self._server.start()
        self._leave_note(up=False)  # now, for the next `agd up`, should this one be killed
        await_server(self._server, self._lab, self._should_stop, self._announce)

    def _leave_note(self, up: bool) -> None:
        note = {"ui": self._lab.ui_url, "server": self._server.pid, "up": up}
        write_bytes(json.dumps(note).encode(), _note(self._lab))

    def _revive(self) -> None:
        """Start again what has died."""
        try:
            if not self._server.alive:
                self._count_death(self._server)
                self._start_server()
                self._leave_note(up=True)
                self._announce("the server is up again")
            if not self._worker.alive:
                self._count_death(self._worker)
                with self._lab.client() as client:
                    free_pool(client, self._lab, self._announce)
                self._worker.start()
                self._announce("the worker is up again")
        except (ServerDied, HTTPError, PrefectException) as error:
            self._announce(str(error))

    def _look(self) -> None:
        """Every few seconds, mend the states of the runs."""
        if time.monotonic() < self._next_look:
            return
        try:
            with self._lab.client() as client:
                self._runs.look(client)
        except TransportError:  # the server has died; the next look sees what this one has missed
            pass
        except (HTTPError, PrefectException) as error:  # a run that was deleted meanwhile, for one
            self._announce(f"could not look after the runs, will try again: {error}")
        self._next_look = time.monotonic() + _LOOK_SECONDS

    def _count_death(self, child: Child) -> None:
        self._deaths.append(time.monotonic())
        if len(self._deaths) == _QUICK_DEATHS and self._deaths[-1] - self._deaths[0] < _QUICK_SECONDS:
            raise LabError(
                f"the {child.name} keeps dying ({child.ending}); {child.log} ends with\n{child.last_lines()}"
            )
        self._announce(f"the {child.name} has died ({child.ending}); starting it again")

    def _drain(self) -> None:
        self._announce("stopping; runs that are queued wait for the next start")
        with self._lab.client() as client:
            drain(client, self._lab, self._announce)

    def _stop(self) -> None:
        """Stop what runs, the worker and the server, in this order: a worker that is told to end kills its run."""
        end_all(self._lab, DRAIN_SECONDS)
        for child in (self._worker, self._server):
            if child.alive:
                self._announce(f"stopping the {child.name}")
                child.stop(_STOP_SECONDS)
        _note(self._lab).unlink(missing_ok=True)


@contextmanager
def _sole_keeper(lab: Lab) -> Iterator[bool]:
    """Whether no other `agd up` has this home; the kernel forgets the claim when its holder dies."""
    with (lab.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _who_is_up(lab: Lab) -> str:
    note = _read_note(lab)
    return f"already up: {note['ui']}" if note.get("up") else f"another `agd up` is starting or stopping in {lab.home}"


def _await_predecessor(lab: Lab, announce: Announce) -> None:
    """The server of an `agd up` that was killed ends within seconds; it may still have the port."""
    server = _read_note(lab).get("server")
    deadline = time.monotonic() + _PREDECESSOR_SECONDS
    if server and _is_running(server):
        announce("waiting for the server of an `agd up` that was killed")
    while server and _is_running(server) and time.monotonic() < deadline:
        time.sleep(_WATCH_SECONDS)
    _note(lab).unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _read_note(lab: Lab) -> dict[str, Any]:
    """Who is up, as they left it; empty while nobody is."""
    try:
        note: dict[str, Any] = json.loads(_note(lab).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note


def _note(lab: Lab) -> Path:
    return lab.folder / "up.json"
