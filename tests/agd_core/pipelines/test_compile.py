"""torch.compile, in a process without the run-time checks of this test session, which would be compiled too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import short

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
import sys
from pathlib import Path
import torch
import agd_core
from tests.agd_core.methods.examples import EXAMPLES
from tests.agd_core.pipelines.stock import images, network_of, open_miniature, write_adapter

name, kind, backend, folder = sys.argv[1:]
torch.set_num_threads(1)
pipe = open_miniature(name)
guided, unguided = images(pipe, 7.5), images(pipe, 1.0)
trained = write_adapter(Path(folder) / name, name, config=EXAMPLES[kind])
agd_core.load_adapter(pipe, trained)
adapted, other = images(pipe, 7.5), images(pipe, 3.0)
agd_core.unload(pipe)

network_of(pipe).compile(backend=backend, fullgraph=True)
close = lambda a, b: torch.allclose(a, b, atol=1e-4)
if name == "tiny-dit":  # the UNet takes too long to compile once more
    assert close(images(pipe, 7.5), guided)
agd_core.load_adapter(pipe, trained)
assert close(images(pipe, 7.5), adapted)
assert close(images(pipe, 3.0), other)
if name == "tiny-dit":
    assert close(images(pipe, 1.0), unguided)
if name != "tiny-dit":
    try:
        images(pipe, 7.5, negative_prompt=["ugly"])
    except agd_core.InputError as error:
        assert "negative_prompt" in str(error)
    else:
        raise AssertionError("dropped")
agd_core.set_enabled(pipe, False)
assert close(images(pipe, 7.5), guided)
print("compiled")
"""


KINDS = ("agd-cross-attention", "guide-full", "guide-tiny")
CASES = [(name, kind) for kind in KINDS for name in ("tiny-dit", "tiny-sd")]


@pytest.mark.parametrize(("name", "kind"), short(CASES, several=True))
def test_compiled_networks_guide_and_hear_of_every_change(name, kind, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, name, kind, "eager", str(tmp_path)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.endswith("compiled\n")
