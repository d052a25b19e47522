"""Short rounds of `benchmarks/kill_train.py`: real trainings, SIGKILL at random moments, and its negative control."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agd_core.methods.examples import EXAMPLES, FIRST, MODELS

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "kill_train.py"
DIT = "DiTTransformer2DModel"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def killed(folder, kills, *options):
    """What the script says of trainings that were killed so often."""
    command = [sys.executable, SCRIPT, "--kills", str(kills), "--steps", "16", "--folder", folder, "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] >= kills
    assert result["adapters unlike the unbroken run's"] == 0
    return result


def test_killed_trainings_end_with_the_adapter_of_the_unbroken_one(tmp_path):
    result = killed(tmp_path, 2)
    assert result["control, nothing dropped"] == "same"
    assert result["control, optimizer dropped"] == "differs"
    assert result["control, adapter dropped"] == "refused"


@pytest.mark.parametrize("kind", EXAMPLES)
def test_so_do_those_of_every_kind_of_method(kind, tmp_path):
    setting = f"methods=[{EXAMPLES[kind].model_dump_json()}]"
    preset = "fashion-dit" if FIRST[kind] == DIT else MODELS[FIRST[kind]]
    killed(tmp_path, 1, "--no-control", "--preset", preset, "--set", setting)
