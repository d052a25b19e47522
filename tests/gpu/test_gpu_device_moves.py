"""A student is the same student on every device, and a pipeline takes its adapter along when it moves."""

import pytest
import torch

import agd_core
from tests.agd_core.methods.examples import EXAMPLES, call_of, model_of, randomised
from tests.agd_core.pipelines.stock import images, open_miniature
from tests.gpu.parts import CASES, model_on, moved, predicted

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("kind", "network"), CASES)
def test_a_student_predicts_on_the_device_what_it_predicts_on_the_cpu(kind, network, device):
    here, there = model_of(network), model_on(device, network)
    call, trained = call_of(here), randomised(EXAMPLES[kind].build(here.backbone))
    expected = predicted(here, trained, call)
    found = predicted(there, trained.to(device), moved(call, device))
    assert found.device.type == device.type
    torch.testing.assert_close(found.cpu(), expected, atol=1e-4, rtol=1e-4)


def test_a_pipeline_moves_with_its_adapter_and_back(sd_adapter, device):
    pipe = open_miniature("tiny-sd")
    agd_core.load_adapter(pipe, sd_adapter)
    expected = images(pipe)
    torch.testing.assert_close(images(pipe.to(device)).cpu(), expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(images(pipe.to("cpu")), expected)


def test_an_adapter_loads_into_a_pipeline_that_is_on_the_device_already(sd_adapter, device):
    before, after = open_miniature("tiny-sd"), open_miniature("tiny-sd").to(device)
    agd_core.load_adapter(before, sd_adapter)
    agd_core.load_adapter(after, sd_adapter)
    torch.testing.assert_close(images(after), images(before.to(device)))
