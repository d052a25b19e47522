"""Stored pairs as bits: their shape and type, that every value in them is finite, and what tells their content."""

import hashlib
import math
from collections.abc import Sequence

import google_crc32c
import numpy as np

from agd_core.basics.digest import digest
from agd_core.data.records import CARRIERS, INPUT, TARGET, CollectionPlan, StoredType

_INTEGERS: dict[StoredType, type[np.unsignedinteger]] = {
    "float16": np.uint16,
    "bfloat16": np.uint16,
    "float32": np.uint32,
}
_MAGNITUDE: dict[StoredType, int] = {"float16": 0x7FFF, "bfloat16": 0x7FFF, "float32": 0x7FFFFFFF}
_INFINITY: dict[StoredType, int] = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000}


class NotFinite(ValueError):
    """A value that is infinite or NaN in the stored type."""


def check_pair(pair: np.ndarray, plan: CollectionPlan) -> None:
    """Refuse what is not a pair of this plan.

    Raises:
        ValueError: another shape or type.
    """
    if pair.shape != plan.pair_shape or pair.dtype != CARRIERS[plan.dtype]:
        raise ValueError(f"a pair is {CARRIERS[plan.dtype]} {plan.pair_shape}, got {pair.dtype} {pair.shape}")


def require_pairs(pairs: np.ndarray, plan: CollectionPlan) -> None:
    """Refuse indices that the plan does not have.

    Raises:
        IndexError: names the range.
    """
    if pairs.size and not 0 <= pairs.min() <= pairs.max() < plan.pairs:
        raise IndexError(f"pairs are 0 to {plan.pairs - 1}, asked for {pairs.min()} to {pairs.max()}")


def magnitudes(pairs: np.ndarray, plan: CollectionPlan) -> np.ndarray:
    """Bits of the largest magnitude of inputs and of predictions with their variance, uint32 `[2]`.

    IEEE floats without their sign order like integers, and comparing integers is the fast way.

    Args:
        pairs: contiguous, `[..., *pair_shape]`.
        plan: what the bits mean, and the shape of a pair.

    Raises:
        NotFinite: an infinity or NaN is among them.
    """
    dtype, integer = plan.dtype, _INTEGERS[plan.dtype]
    rows = pairs.view(integer).reshape(-1, plan.pair_shape[0], math.prod(plan.latent_shape))
    bits = rows & integer(_MAGNITUDE[dtype])
    by_slot = bits.max(axis=(0, 2)).astype(np.uint32)
    largest: np.ndarray = np.maximum.reduceat(by_slot, [INPUT, TARGET])
    if largest.max() >= _INFINITY[dtype]:
        raise NotFinite(f"holds a value that is not finite in {dtype}")
    return largest


def pair_magnitudes(pair: np.ndarray, plan: CollectionPlan, trajectory: int) -> np.ndarray:
    """`magnitudes` of one pair; an error names its trajectory."""
    try:
        return magnitudes(np.ascontiguousarray(pair), plan)
    except NotFinite as error:
        raise NotFinite(f"trajectory {trajectory} {error}") from None


def checksums(pairs: np.ndarray) -> list[int]:
    """crc32c of every pair; `pairs` is contiguous, `[n, *pair_shape]`."""
    return [google_crc32c.value(row) for row in pairs.reshape(len(pairs), -1).view(np.uint8)]


def shard_content(sums: Sequence[int] | np.ndarray) -> str:
    """sha256 over the crc32c of every pair of a shard in order: the same however the pairs are stored.

    The crc32c of a whole Zarr shard cannot tell its content: there every chunk is followed by its own crc32c, and the
    crc of both together is the same for all data.
    """
    return hashlib.sha256(np.asarray(sums, dtype="<u4").tobytes()).hexdigest()


def content_digest(plan: CollectionPlan, shards: Sequence[str]) -> str:
    """Identity of plan and latents, from `shard_content` of every shard in order."""
    return digest({"dataset_id": plan.dataset_id, "shards": list(shards)})


def as_floats(largest: np.ndarray, dtype: StoredType) -> tuple[float, float]:
    """The floats whose bits `magnitudes` gave: (input, prediction)."""
    if dtype == "float16":
        values = largest.astype(np.uint16).view(np.float16)
    else:
        values = (largest << (16 if dtype == "bfloat16" else 0)).astype(np.uint32).view(np.float32)
    return float(values[INPUT]), float(values[TARGET])
