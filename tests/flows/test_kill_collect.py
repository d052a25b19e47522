"""A short round of `benchmarks/kill_collect.py`: real collections, SIGKILL at random moments."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_collect.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_killed_collections_end_like_the_unbroken_one(tmp_path):
    command = [sys.executable, SCRIPT, "--kills", "6", "--trajectories", "15", "--folder", tmp_path, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] >= 6
    assert result["rounds"] > result["rounds of two racing collectors"] >= 1
    assert result["checks of what is visible"] >= 5
    assert result["torn units visible"] == result["finished units computed again"] == 0
    assert result["content digests unlike the unbroken run's"] == 0
