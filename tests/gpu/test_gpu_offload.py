"""Pipelines whose weights rest elsewhere and visit the device are guided there as they are without."""

import pytest
import torch
from accelerate import cpu_offload

import agd_core
from tests.agd_core.pipelines.stock import images, network_of, open_miniature

pytestmark = pytest.mark.gpu
CPU = torch.device("cpu")


def by_component(pipe, device):
    pipe.enable_model_cpu_offload(device=device)


def by_module(pipe, device):
    cpu_offload(network_of(pipe.to(device)).to(CPU), execution_device=device)


def by_group(pipe, device):
    pipe.to(device)
    network_of(pipe).enable_group_offload(onload_device=device, offload_device=CPU, offload_type="leaf_level")


@pytest.mark.parametrize("form", [by_component, by_module, by_group])
@pytest.mark.parametrize("loaded_first", [True, False])
def test_offloaded_pipelines_are_guided(form, loaded_first, sd_adapter, device):
    plain, offloaded = open_miniature("tiny-sd"), open_miniature("tiny-sd")
    agd_core.load_adapter(plain, sd_adapter)
    expected = images(plain.to(device))
    if loaded_first:
        agd_core.load_adapter(offloaded, sd_adapter)
    form(offloaded, device)
    if not loaded_first:
        agd_core.load_adapter(offloaded, sd_adapter)
    torch.testing.assert_close(images(offloaded), expected, atol=1e-4, rtol=1e-4)
