"""Progress of a stage as a live artifact on the Prefect run page."""

import time
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

_UPDATE_SECONDS = 2.0


class ArtifactProgress:
    """A `Progress` listener that keeps one progress artifact up to date, at most every two seconds."""

    def __init__(self, job: str) -> None:
        self._artifact: UUID = create_progress_artifact(progress=0.0, description=job)  # type: ignore[assignment]
        self._job = job
        self._updated = time.monotonic()

    def __call__(self, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now - self._updated >= _UPDATE_SECONDS or done == total:
            self._updated = now
            text = f"{self._job}: {done} of {total} {note}".rstrip()
            update_progress_artifact(self._artifact, progress=100 * done / total, description=text)
