"""The ways to run a network: as it is, captured as a CUDA graph, compiled, and compiled into CUDA graphs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from benchmarks.gpu.timing import Step

EAGER, CAPTURED = "eager", "captured"
MODES: dict[str, Mapping[str, Any] | None] = {
    EAGER: None,
    CAPTURED: None,
    "torch.compile": {},
    "compiled CUDA graphs": {"mode": "reduce-overhead"},
}
"""Arguments of torch.compile; None: not compiled."""
_WARM_UP = 3
"""Steps before a capture, as torch asks for."""
TOY_COMPILER = "eager"
"""Traces as the others do and generates no code, which takes minutes."""


@contextmanager
def compiled(network: Any, mode: str, toy: bool) -> Iterator[None]:
    """The network in this mode, for the block."""
    arguments = MODES[mode]
    if arguments is None:
        yield
        return
    torch._dynamo.reset()
    counters.clear()
    network.compile(dynamic=False, **({"backend": TOY_COMPILER} if toy else arguments))
    try:
        yield
    finally:
        network._compiled_call_impl = None  # as it was before: torch has no call for that
        torch._dynamo.reset()


@torch.no_grad()
def captured(step: Step, device: torch.device) -> Step:
    """The step as one CUDA graph, launched at once; on the CPU as it is."""
    if device.type != "cuda":
        return step
    aside = torch.cuda.Stream(device)
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            step()
    torch.cuda.current_stream(device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = step()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


def graph_breaks() -> int:
    """Since the last network was compiled."""
    return sum(counters["graph_break"].values())


def graphs() -> int:
    """Made since then; every shape and every side has its own."""
    return int(counters["stats"]["unique_graphs"])
