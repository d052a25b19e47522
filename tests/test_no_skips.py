"""The gate's own guard: with AGD_NO_SKIPS=1, a real test session in which anything is skipped fails and says why."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SKIPS = {
    "by a mark": "import pytest\n@pytest.mark.skip(reason='no moon')\ndef test_it(): pass",
    "in a test": "import pytest\ndef test_it(): pytest.skip('no moon')",
    "in a fixture": "import pytest\n@pytest.fixture\ndef it(): pytest.skip('no moon')\ndef test_it(it): pass",
    "a whole file": "import pytest\npytest.skip('no moon', allow_module_level=True)",
    "a library": "import pytest\npytest.importorskip('moon_that_is_not', reason='no moon')",
}


def session(folder, source, switch):
    (folder / "test_it.py").write_text(source)
    (folder / "pytest.ini").write_text("[pytest]")
    command = [sys.executable, "-m", "pytest", "-q", "-rfEs", "-p", "no:cacheprovider", "-p", "tests.no_skips"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AGD_NO_SKIPS": switch, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("way", SKIPS)
def test_a_skip_fails_the_gate(way, tmp_path):
    found = session(tmp_path, SKIPS[way], "1")
    assert found.returncode != 0
    assert "AGD_NO_SKIPS=1: it must run here" in found.stdout
    assert "no moon" in found.stdout
    assert "skipped" not in found.stdout.splitlines()[-1]


@pytest.mark.parametrize("way", ["by a mark", "in a fixture"])
def test_elsewhere_a_skip_is_a_skip(way, tmp_path):
    found = session(tmp_path, SKIPS[way], "")
    assert found.returncode == 0
    assert "no moon" in found.stdout
    assert found.stdout.splitlines()[-1].startswith("1 skipped")


def test_what_runs_passes(tmp_path):
    assert session(tmp_path, "def test_it(): pass", "1").returncode == 0
