"""How long OpenMP's threads spin before they sleep: set before PyTorch is loaded, and the user's word counts."""

import os
import subprocess
import sys

import pytest

ASK = "import flows, os, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"


@pytest.mark.parametrize(("given", "used"), [({}, "10000"), ({"GOMP_SPINCOUNT": "77"}, "77")])
def test_threads_spin_for_a_short_time_unless_the_user_says_otherwise(given, used):
    rest = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    asked = subprocess.run([sys.executable, "-c", ASK], env=rest | given, check=True, capture_output=True, text=True)
    assert asked.stdout.split() == [used, "False"]
