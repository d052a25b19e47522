"""What tests of crafted stores start from."""

import resource
from pathlib import Path

import pytest

from storage.objects import LocalObjects
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import make_plan, write_missing


@pytest.fixture
def little_memory():
    """So little beyond what is used already that a bomb fails at once."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def store(tmp_path):
    return write_missing(ZarrTrajectoryStore.prepare(LocalObjects(tmp_path / "store"), make_plan()))
