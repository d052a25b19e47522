"""Job: the tests that need a GPU, `pytest -m gpu`, each one's outcome written as it comes."""

import os
from pathlib import Path

import pytest

from benchmarks.gpu.place import Place

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests" / "gpu"
DEVICE = "AGD_TEST_DEVICE"
"""Tells those tests where to run; see tests/gpu/conftest.py."""


class Recorder:
    """A pytest plugin that writes every test's outcome to a place."""

    def __init__(self, place: Place) -> None:
        self.place, self.failed = place, 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test has run, or its preparation has failed."""
        if report.when != "call" and report.passed:
            return
        self.failed += report.failed
        said = str(report.longrepr).splitlines()[-1] if report.failed else ""
        row = {"test": report.nodeid.partition("tests/gpu/")[2] or report.nodeid, "outcome": report.outcome}
        self.place.row("tests", row | {"seconds": round(report.duration, 2), "last line": said})


def run(place: Place) -> None:
    """All of them, in this process, whose libraries are loaded; the suite's own options are for a fresh one.

    Raises:
        RuntimeError: a test has failed, or none was there.
    """
    os.environ[DEVICE] = place.device_name
    os.chdir(ROOT)
    recorder = Recorder(place)
    files = sorted(FOLDER.glob("test_*.py"), key=lambda path: "compile" in path.name)  # which takes the longest
    arguments = [*map(str, files), "-o", "addopts=", "-m", "gpu", "-q", "-W", "default", "-p", "no:cacheprovider"]
    code = pytest.main(arguments, plugins=[recorder])
    if code != pytest.ExitCode.OK:
        raise RuntimeError(f"pytest ended with {pytest.ExitCode(code).name}, {recorder.failed} tests have failed")
