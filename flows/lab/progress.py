"""Progress of a stage as a live artifact on the run's page, with the time left."""

import time
from contextlib import suppress
from uuid import UUID

from httpx import TransportError
from prefect.artifacts import create_progress_artifact, update_progress_artifact

_UPDATE_SECONDS = 2.0


class ArtifactProgress:
    """A `Progress` listener that keeps one progress artifact up to date, at most every two seconds.

    It only shows something, so a server that is away ends no work.
    """

    def __init__(self, job: str) -> None:
        self._artifact: UUID = create_progress_artifact(progress=0.0, description=job)  # type: ignore[assignment]
        self._job = job
        self._started = self._updated = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = done, now
        if now - self._updated >= _UPDATE_SECONDS or done == total:
            self._updated = now
            text = f"{self._job}: {done} of {total} {note}".rstrip() + self._left(now, done, total)
            with suppress(TransportError):
                update_progress_artifact(self._artifact, progress=100 * done / total, description=text)

    def _left(self, now: float, done: int, total: int) -> str:
        """The time left, from what was done since the first word of this run."""
        moved = done - (self._first or 0)
        if not moved or done == total:
            return ""
        seconds = (now - self._started) / moved * (total - done)
        return f", about {seconds:.0f} s left" if seconds < 120 else f", about {seconds / 60:.0f} min left"
