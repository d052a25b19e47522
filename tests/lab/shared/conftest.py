"""One real lab for all tests that only use it; tests that stop or kill one start their own (`lab_process.py`)."""

import pytest

from tests.lab.lab_process import RunningLab, running_lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> RunningLab:
    """A started `agd up` in a temporary home on a free port, shared by the whole session: leave it as you found it."""
    folder = tmp_path_factory.mktemp("lab")
    tests = str(tmp_path_factory.getbasetemp())
    with running_lab(folder / "home", folder / "work", None, "--folder", tests) as running:
        yield running
