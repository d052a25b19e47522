"""One line of the results table, the same in the terminal, in metrics.json and in the report."""

import math
from collections.abc import Mapping
from typing import Any, TypedDict


class Row(TypedDict):
    """What one method reached at one guidance scale, scheduler and step count."""

    name: str
    """How the report calls the method."""
    method: str
    """ "none", "cfg" or an adapter kind."""
    guidance_scale: float
    scheduler: str
    steps: int
    teacher_scale: float
    """Guidance scale of the CFG samples that paired metrics compare with: the scale that was asked for."""
    nfe: float
    """Network evaluations per image, counted."""
    fd: float | None
    fd_low: float | None
    fd_high: float | None
    accuracy: float | None
    paired_mse: float | None
    images_per_second: float
    """Denoising only, measured while the sample set was made, on the device that the protocol names."""
    adapter_parameters: int
    adapter_percent: float
    """Of the base network's parameters."""
    scores: Mapping[str, Mapping[str, Any]]
    """Every metric's `Score.as_dict()` by name, those above included."""
    protocol: Mapping[str, Any]
    """How the numbers were made, see `agd_core.protocol`."""


NO_NUMBER = "no number"
"""Where a metric was measured and came out as NaN or infinite; JSON holds null there."""
WARNED = " (!)"
"""Behind a number that a warning belongs to."""
HEADINGS = ("method", "scale", "NFE", "FD (95 % interval)", "accuracy", "paired MSE", "images/s", "adapter parameters")


def cells(row: Row) -> tuple[str, ...]:
    """The row as text, in the order of `HEADINGS`; a dash where nothing was measured, see also `NO_NUMBER`."""
    return (
        row["name"],
        f"{row['guidance_scale']:g}",
        f"{row['nfe']:g}",
        _distance(row),
        _number(row, "accuracy", row["accuracy"], "{:.1%}"),
        _number(row, "paired_mse", row["paired_mse"], "{:.4f}"),
        f"{row['images_per_second']:.1f}",
        f"{row['adapter_parameters']:,} ({row['adapter_percent']:.1f} %)" if row["adapter_parameters"] else "-",
    )


def warnings(rows: list[Row]) -> list[str]:
    """Every warning about a number of these rows, once, in order."""
    every = (warning for row in rows for score in row["scores"].values() for warning in score["warnings"])
    return list(dict.fromkeys(every))


def is_number(value: float | None) -> bool:
    """Whether there is a number that can be shown."""
    return value is not None and math.isfinite(value)


def plain(value: Any) -> Any:
    """The same data for JSON, which has no NaN and no infinity: at any depth they become None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _distance(row: Row) -> str:
    text = _number(row, "fd", row["fd"], "{:.2f}")
    low, high = row["fd_low"], row["fd_high"]
    if is_number(row["fd"]) and is_number(low) and is_number(high):
        text = f"{text} ({low:.2f} to {high:.2f})"
    return text + WARNED if row["scores"].get("fd", {}).get("warnings") else text


def _number(row: Row, metric: str, value: float | None, pattern: str) -> str:
    if is_number(value):
        return pattern.format(value)
    return NO_NUMBER if metric in row["scores"] else "-"
