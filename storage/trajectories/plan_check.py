"""What a plan file must say before anything is believed of it: a checksum proves that it is whole, not that it is ours.

A store may come from anybody. So counts, types and ranges are checked before they size anything.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agd_core.basics.digest import digest
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import parse_json
from agd_core.data.records import CARRIERS
from storage.errors import Damaged

ROW, SCALAR = "row_", "scalar_"
"""Begin the columns that say what trajectories are asked for: rows of the conditions, and numbers."""
_MOST_SIDES, _MOST_SIDE = 8, 1 << 16
"""How many sides a latent has, and how long one is: channels, frames, height, width."""
_MOST_TOGETHER = 1 << 24
"""Trajectories in a shard or a unit."""
_MOST_TIMESTEPS = 100_000


def footer_part(footer: Mapping[str, str], name: str) -> dict[str, Any]:
    """One of the footer's JSON objects.

    Raises:
        Damaged: it is not there, or no plain data.
    """
    try:
        value = parse_json(footer[name], name)
        digest(value)
    except (InputError, KeyError, ValueError) as error:
        raise Damaged(f"has no readable {name}: {error}") from error
    if not isinstance(value, dict):
        raise Damaged(f"has no readable {name}: it is no object")
    return value


def checked_layout(layout: Mapping[str, Any]) -> dict[str, Any]:
    """The layout's settings, as `CollectionPlan` takes them.

    Raises:
        Damaged: one that no plan has.
    """
    shape, slots = layout.get("latent_shape"), layout.get("prediction_slots", 1)
    shard, unit = layout.get("shard_trajectories", 0), layout.get("unit_trajectories", 0)
    sides = shape if isinstance(shape, list) and 0 < len(shape) <= _MOST_SIDES else [0]
    right = (
        all(_within(side, _MOST_SIDE) for side in sides)
        and _within(shard, _MOST_TOGETHER)
        and _within(unit, _MOST_TOGETHER)
        and unit % shard == 0
        and layout.get("dtype") in list(CARRIERS)
        and _within(slots, 2)
    )
    if not right:
        raise Damaged(f"has a layout that no store has: {dict(layout)}")
    return {
        "latent_shape": tuple(sides),
        "dtype": layout["dtype"],
        "shard_trajectories": shard,
        "unit_trajectories": unit,
        "prediction_slots": slots,
    }


def check_rows(table: pa.Table, timesteps: np.ndarray, conditions: Mapping[str, np.ndarray]) -> None:
    """Refuse rows that are no trajectories of this schedule and these conditions.

    Raises:
        Damaged: what is wrong.
    """
    if timesteps.ndim != 1 or not 0 < len(timesteps) <= _MOST_TIMESTEPS or not np.isfinite(timesteps).all():
        raise Damaged("has no readable schedule")
    if not len(table) or not conditions:
        raise Damaged("has no trajectories or no conditions")
    if not np.array_equal(table["trajectory"].to_numpy(), np.arange(len(table))):
        raise Damaged("numbers its trajectories otherwise than 0, 1, 2, ...")
    kept, steps = pc.list_value_length(table["steps"]).to_numpy(), pc.list_flatten(table["steps"])
    if (kept != kept[0]).any() or not kept[0] or steps.null_count:
        raise Damaged("keeps other numbers of steps of other trajectories, or none")
    if not _all_within(steps.to_numpy(), len(timesteps)):
        raise Damaged("keeps steps that its schedule does not have")
    rows, scalars = ([n for n in table.column_names if n.startswith(kind)] for kind in (ROW, SCALAR))
    if not rows or not scalars:
        raise Damaged("does not say what its trajectories are asked for")
    if not all(_all_within(table[name].to_numpy(), min(map(len, conditions.values()))) for name in rows):
        raise Damaged("names conditions that it does not have")
    if not all(np.isfinite(table[name].to_numpy()).all() for name in scalars):
        raise Damaged("has scalars that are no numbers")


def _within(value: object, most: int) -> bool:
    return type(value) is int and 0 < value <= most


def _all_within(values: np.ndarray, end: int) -> bool:
    return bool(values.min() >= 0 and values.max() < end)
