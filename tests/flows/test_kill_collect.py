"""A short round of `benchmarks/kill_collect.py`: real collections, SIGKILL at random moments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real_images import write_pictures

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_collect.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("states", ["guided", "noised, the teacher's", "noised, real"])
def test_killed_collections_end_like_the_unbroken_one(states, tmp_path):
    settings = ["collect.states=guided"] if states == "guided" else ["collect.states=noised"]
    if states == "noised, real":
        settings.append(f"collect.images={write_pictures(tmp_path / 'pictures')}")
    command = [sys.executable, SCRIPT, "--kills", "6", "--trajectories", "15", "--folder", tmp_path, "--json"]
    done = subprocess.run([*command, "--set", *settings], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] >= 6
    assert result["rounds"] > result["rounds of two racing collectors"] >= 1
    assert result["checks of what is visible"] >= 5
    assert result["torn units visible"] == result["finished units computed again"] == 0
    assert result["content digests unlike the unbroken run's"] == 0
