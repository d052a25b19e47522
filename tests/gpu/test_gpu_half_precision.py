"""With the base in half precision students and training stay finite and near what they are in float32."""

import pytest
import torch

from agd_core.methods import Pairs
from tests.agd_core.methods.examples import EXAMPLES, FIRST, call_of, model_of, randomised
from tests.gpu.parts import CASES, model_on, moved, predicted

pytestmark = pytest.mark.gpu
NEAR = 0.1
"""Of the largest value."""


@pytest.mark.parametrize(("kind", "network"), CASES)
def test_a_student_in_bfloat16_is_near_the_one_in_float32(kind, network, device):
    whole, half = model_on(device, network), model_on(device, network, "bfloat16")
    call = moved(call_of(model_of(network)), device)
    trained = randomised(EXAMPLES[kind].build(whole.backbone)).to(device)
    expected, found = predicted(whole, trained, call), predicted(half, trained, call)
    assert found.dtype is torch.float32
    assert (found - expected).abs().max() < NEAR * expected.abs().max()


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_weight_that_is_trained_gets_a_finite_gradient_in_float32(kind, device):
    model = model_on(device, FIRST[kind], "bfloat16")
    latents, timestep, ask = moved(call_of(model_of(FIRST[kind])), device)
    trained = randomised(EXAMPLES[kind].build(model.backbone)).to(device)
    with trained.installed(model) as student:
        trained.loss(student, Pairs(latents, timestep, ask, torch.zeros_like(latents))).backward()
    for parameter in trained.parameters():
        assert parameter.grad.dtype is torch.float32
        assert parameter.grad.isfinite().all()
