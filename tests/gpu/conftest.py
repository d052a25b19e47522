"""Tests that a GPU must pass: `pytest -m gpu`; with AGD_TEST_DEVICE=cpu they run on the CPU, so none is dead code."""

import os

import pytest
import torch

from tests.agd_core.pipelines.stock import write_adapter


@pytest.fixture(scope="session")
def device():
    """Where the tests run."""
    return torch.device(os.environ.get("AGD_TEST_DEVICE", "cuda"))


@pytest.fixture(scope="session")
def sd_adapter(tmp_path_factory):
    """A folder with a trained-like adapter of the miniature tiny-sd."""
    return write_adapter(tmp_path_factory.mktemp("gpu") / "adapter", "tiny-sd")


@pytest.fixture(autouse=True)
def _full_precision():
    """float32 products in float32, so that a device can be held against another one."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    yield
    torch.backends.cudnn.allow_tf32 = before
