"""The damaged inputs that once found something (`python -m tests.fuzz --kept`) find nothing any more."""

import subprocess
import sys


def test_the_seeds_that_found_something_find_nothing():
    command = [sys.executable, "-m", "tests.fuzz", "--kept", "--seconds", "600"]  # a busy machine is no fault
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert " 0 with faults" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
