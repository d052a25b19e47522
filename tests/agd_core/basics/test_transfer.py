import pytest
import torch

from agd_core.basics.transfer import to_device


def test_what_is_there_already_is_not_copied():
    there = torch.arange(3.0)
    assert to_device(there, torch.device("cpu")) is there


@pytest.mark.parametrize(("device", "journey"), [("cpu", [("cpu", False)]), ("cuda", ["pinned", ("cuda", True)])])
def test_only_what_goes_to_a_gpu_is_pinned_and_nobody_waits(monkeypatch, device, journey):
    noted = []  # there may be no GPU to send a tensor to

    def to(tensor, device, non_blocking=False):
        noted.append((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: noted.append("pinned") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", to)
    to_device(torch.ones(2), torch.device(device))
    assert noted == journey


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int64])
def test_values_arrive(dtype):
    tensor = torch.arange(6).to(dtype)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert torch.equal(to_device(tensor, device).cpu(), tensor)
