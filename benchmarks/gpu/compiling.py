"""The ways to run a network: as it is, compiled, and compiled into CUDA graphs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._dynamo.utils import counters

MODES: dict[str, Mapping[str, Any] | None] = {
    "eager": None,
    "torch.compile": {},
    "CUDA graphs": {"mode": "reduce-overhead"},
}
"""Arguments of torch.compile; None: not compiled."""
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


def graph_breaks() -> int:
    """Since the last network was compiled."""
    return sum(counters["graph_break"].values())


def graphs() -> int:
    """Made since then; every shape and every side has its own."""
    return int(counters["stats"]["unique_graphs"])
