"""With AGD_NO_SKIPS=1 a skipped test has failed: the gate has everything that the tests need, or says what is missing.

A pytest plugin; `.ci/run` sets the variable. Without it, tests that need what a person's machine may lack (root, a
browser) are skipped with a line that says how to get it.
"""

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

SWITCH = "AGD_NO_SKIPS"
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _judged((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _judged((yield))


def _judged(report: Report) -> Report:
    if os.environ.get(SWITCH) == "1" and report.skipped:
        report.longrepr = f"{SWITCH}=1: it must run here, and was skipped. {report.longreprtext}"
        report.outcome = "failed"
    return report
