"""The base's network compiled for as long as something is trained in it (`torch.compile`)."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from agd_core.basics.errors import InputError
from agd_core.models.backbones import Backbone

COMPILER = "inductor"
"""PyTorch's own."""


@contextmanager
def compiled(backbone: Backbone, backend: str = COMPILER) -> Iterator[None]:
    """Inside the block the network and what hangs on it run as one compiled graph, forward and backward.

    Weights, hooks and names stay where they are. It is compiled at its first call: calls must be of equal shapes.

    Args:
        backbone: it calls the compiled network inside the block.
        backend: a compiler that `torch.compile` knows.

    Raises:
        InputError: there is no compiler for what PyTorch generates.
    """
    network = backbone.network
    if backend == COMPILER:
        _require_compiler(torch.device(network.device))
    with backbone.calling(torch.compile(network, fullgraph=True, dynamic=False, backend=backend)):
        yield


def _require_compiler(device: torch.device) -> None:
    """PyTorch generates C++ for the CPU; for a GPU, Triton needs a C compiler to launch its kernels."""
    variable, usual = ("CXX", ("g++",)) if device.type == "cpu" else ("CC", ("gcc", "clang"))
    if not any(shutil.which(name) for name in ((os.environ[variable],) if os.environ.get(variable) else usual)):
        known = " or ".join(usual)
        raise InputError(f"train.compile=true needs a compiler, {known} (or ${variable}): install one, or set it false")
