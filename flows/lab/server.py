"""The Prefect server of a lab."""

import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from agd_core.basics.progress import ShouldStop, Stopped
from flows.lab.child import Child
from flows.lab.lab import Lab, LabError

_START_SECONDS = 180.0
_POLL_SECONDS = 0.2
_TELL_SECONDS = 5.0
_ANSWER_SECONDS = 2.0


class ServerDied(LabError):
    """The server ended before it answered."""


def server_of(lab: Lab) -> Child:
    """The server's process, not started. Orphaned, it is stopped: its database would block the next one."""
    return Child(lab, "server", "flows.lab.server_process", (), if_orphaned=signal.SIGTERM, private=True)


def await_server(server: Child, lab: Lab, should_stop: ShouldStop, announce: Callable[[str], None]) -> None:
    """Wait until a server that was started answers.

    Args:
        server: its process.
        lab: where it answers.
        should_stop: ends the waiting.
        announce: told that it takes its time, ever more rarely.

    Raises:
        ServerDied: it ended; the message ends with the end of its log.
        LabError: it does not answer.
        Stopped: asked to.
    """
    began = time.monotonic()
    tell = _TELL_SECONDS
    while not is_healthy(lab):
        if should_stop():
            raise Stopped("stopped while the server was starting")
        if not server.alive:
            raise ServerDied(
                f"the server did not start ({server.ending}); {server.log} ends with\n{server.last_lines()}"
            )
        waited = time.monotonic() - began
        if waited > _START_SECONDS:
            raise LabError(
                f"the server did not answer in {_START_SECONDS:g} s; {server.log} ends with\n{server.last_lines()}"
            )
        if waited > tell:
            tell *= 2
            announce(f"the server is not ready after {waited:.0f} s; a first start also makes its database")
        time.sleep(_POLL_SECONDS)


def is_healthy(lab: Lab) -> bool:
    """Whether a server answers at the lab's address."""
    try:
        with urllib.request.urlopen(f"{lab.api_url}/health", timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 our own
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
