"""Debian's Chromium, which no Python package brings."""

import shutil

import pytest


def chromium_path() -> str:
    """Where it is; the test is skipped on a machine without it."""
    return shutil.which("chromium") or pytest.skip("no chromium on this machine; as root: apt-get install chromium")
