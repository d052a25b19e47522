"""One seed per record: noise never depends on batch size, shard size, worker count or resume point.

The habit is edm2's `StackedRandomGenerator` (https://github.com/NVlabs/edm2); generators live on the
CPU so that the same seed gives the same noise on every device.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from agd_core.basics.digest import canonical_json


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of its parts, e.g. `derive_seed(run_seed, "noise", index)`."""
    hashed = hashlib.sha256(canonical_json(list(parts)).encode()).digest()
    return int.from_bytes(hashed[:8], "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def stacked_noise(generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise, float32, `[len(generators), *shape]`; row i comes from generator i alone."""
    return torch.stack([torch.randn(shape, generator=g) for g in generators])
