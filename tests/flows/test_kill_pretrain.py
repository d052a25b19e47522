"""A short round of `benchmarks/kill_pretrain.py`: real trainings, SIGKILL at random moments."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_pretrain.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}


def test_killed_trainings_end_with_the_model_of_the_unbroken_one(tmp_path):
    command = [sys.executable, SCRIPT, "--kills", "2", "--steps", "12", "--folder", tmp_path, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] >= 2
    assert result["models unlike the unbroken run's"] == 0
    assert result["second runs unlike the first"] == 0
