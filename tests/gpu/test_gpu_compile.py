"""Compiled students predict what they predict uncompiled, from CUDA graphs too where there is CUDA.

Run-time checks of types would be compiled with them: `python -m pytest -o addopts= -m gpu tests/gpu`.
"""

import os

import pytest
import torch

from tests.agd_core.methods.examples import EXAMPLES, call_of, model_of, randomised
from tests.gpu.parts import DIT, model_on, moved

pytestmark = pytest.mark.gpu
MODES = {"kernels": {}, "graphs": {"mode": "reduce-overhead"}}
ON_CPU = {"backend": "eager"}
"""Traces alike and generates no code, which would take minutes there."""


@pytest.mark.parametrize("kind", ["agd-offset", "agd-cross-attention"])
@pytest.mark.parametrize("mode", MODES if os.environ.get("AGD_TEST_DEVICE") != "cpu" else ["kernels"])
def test_a_compiled_student_predicts_the_same(mode, kind, device):
    model = model_on(device, DIT)
    latents, timestep, ask = moved(call_of(model_of(DIT)), device)
    trained = randomised(EXAMPLES[kind].build(model.backbone)).to(device)
    with trained.installed(model) as student, torch.no_grad():
        expected = [student.predict(latents, timestep - shift, ask) for shift in (0, 10)]
        model.network.compile(fullgraph=True, dynamic=False, **(MODES[mode] if device.type == "cuda" else ON_CPU))
        try:
            found = [student.predict(latents, timestep - shift, ask).clone() for shift in (0, 10)]
        finally:
            model.network._compiled_call_impl = None
            torch._dynamo.reset()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
