"""Memory estimates without weights and without a GPU."""

from agd_core.memory.estimates import (
    GIB,
    NOTE,
    MemoryEstimate,
    decoding_memory,
    encoding_memory,
    sampling_memory,
    training_memory,
)
from agd_core.memory.largest_batch import largest_batch
from agd_core.memory.sized import Sized

__all__ = [
    "GIB",
    "NOTE",
    "MemoryEstimate",
    "Sized",
    "decoding_memory",
    "encoding_memory",
    "largest_batch",
    "sampling_memory",
    "training_memory",
]
