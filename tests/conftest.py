import os

os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")  # else MKL's last bits depend on where in memory a tensor lies

import tempfile

import pytest
import torch
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from agd_core.models.config import BaseModelConfig
from agd_core.models.model import BaseModel
from flows.config import PipelineConfig
from flows.presets import load_config

settings.register_profile("patient", deadline=None)  # a busy machine is no failure
settings.load_profile("patient")

pytest_plugins = ["tests.no_skips"]
pytest.register_assert_rewrite("tests.storage.contract")

SMALL = (
    "collect.trajectories=12",
    "collect.steps=6",
    "collect.kept_steps=3",
    "collect.shard_trajectories=4",
    "train.steps=6",
    "train.batch_size=8",
    "sample.images=20",
    "sample.steps=4",
    "sample.curve_steps=[2]",
    "evaluate.distance_subsets=5",
    "evaluate.kid_subsets=2",
    "evaluate.curve_images=4",
    "evaluate.measure_cost=false",
)
"""Overrides that make the demo's preset a matter of seconds."""
SHARED_LAB = "tests/lab/shared"


def pytest_configure(config):
    """Leases of its own: a test session waits for no other one and for no real run.

    Not a fixture, since test modules copy the environment for their processes when they are imported.
    """
    folder = tempfile.TemporaryDirectory(prefix="agd-leases-")
    config.add_cleanup(folder.cleanup)
    os.environ |= {"AGD_LEASE_FOLDER": folder.name, "AGD_LEASE": "on"}


def pytest_collection_modifyitems(items):
    """The lab's tests first: they are long and mostly wait, so the others fill what they leave of the cores."""
    items.sort(key=lambda item: "tests/lab/" not in item.nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A worker takes a whole file, and all files that share the lab: one is started, not one per worker."""
    return ByFileAndLab(config, log)


class ByFileAndLab(LoadFileScheduling):
    """See above."""

    def _split_scope(self, nodeid):
        return SHARED_LAB if nodeid.startswith(SHARED_LAB) else super()._split_scope(nodeid)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def teacher() -> BaseModel:
    """The real built-in model."""
    return BaseModelConfig().build(torch.device("cpu"))


@pytest.fixture(scope="session")
def small_config() -> PipelineConfig:
    return load_config("fashion-dit", SMALL)
