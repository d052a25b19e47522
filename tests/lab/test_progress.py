"""The progress artifact of a run, without a server."""

from uuid import uuid4

import httpx
import pytest

from flows.lab import progress


@pytest.fixture
def told(monkeypatch):
    """What the server is told; it is away at every second time."""
    said = []

    def update(artifact, progress, description):
        said.append(description)
        if len(said) % 2:
            raise httpx.ConnectError("[Errno 111] Connection refused")

    monkeypatch.setattr(progress, "create_progress_artifact", lambda **given: uuid4())
    monkeypatch.setattr(progress, "update_progress_artifact", update)
    monkeypatch.setattr(progress, "_UPDATE_SECONDS", 0.0)
    return said


def test_a_server_that_is_away_ends_no_work(told):
    listener = progress.ArtifactProgress("collect")
    for done in range(1, 5):
        listener(done, 4)
    assert [line.split(",")[0].rstrip() for line in told] == [f"collect: {done} of 4" for done in range(1, 5)]
