"""Debian's Chromium, which no Python package brings."""

import shutil

import pytest
from playwright.sync_api import expect

PATIENCE = 300_000.0
"""Milliseconds: what hangs is ended then, what is slow on a busy machine is waited for."""
expect.set_options(timeout=PATIENCE)


def chromium_path() -> str:
    """Where it is; the test is skipped on a machine without it."""
    return shutil.which("chromium") or pytest.skip("no chromium on this machine; as root: apt-get install chromium")
