import socket
import zipfile
from pathlib import Path

import matplotlib.cbook
import numpy as np
import pytest
import torch
from PIL import Image

from agd_core.basics.errors import InputError


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("an extractor went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def cpu():
    return torch.device("cpu")


@pytest.fixture(scope="session")
def photo():
    """A photograph of Admiral Grace Hopper in uniform, uint8 [600, 512, 3], that comes with matplotlib."""
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))


@pytest.fixture(scope="session")
def cuttings(photo):
    """Sixty-five different pieces of the photograph, uint8 [65, 40, 32, 3]."""
    return torch.stack([photo[8 * i : 8 * i + 40, 6 * i : 6 * i + 32] for i in range(65)])


@pytest.fixture(scope="session")
def one_line():
    """Runs something that must be refused, and gives the refusal after a look at its form."""

    def refusal(function, *args):
        with pytest.raises(InputError) as caught:
            function(*args)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 400
        return message

    return refusal


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def trap(tmp_path):
    """A pickle that would write a marker file: (its path, the marker's path)."""
    path, marker = tmp_path / "trap.pth", tmp_path / "executed"
    torch.save({"weight": Trap(marker)}, path)
    call, arguments = Trap(marker).__reduce__()
    call(*arguments)
    assert marker.exists(), "what unpickling does must leave the file, or the trap proves nothing"
    marker.unlink()
    with zipfile.ZipFile(path) as archive:
        assert b"touch" in archive.read("trap/data.pkl"), "and the file must ask for it"
    return path, marker
