"""One line of the results table, the same in the terminal, in metrics.json and in the report."""

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


WARNED = " (!)"
"""Behind a number that a warning belongs to."""
HEADINGS = ("method", "scale", "NFE", "FD (95 % interval)", "accuracy", "paired MSE", "images/s", "adapter parameters")


def cells(row: Row) -> tuple[str, ...]:
    """The row as text, in the order of `HEADINGS`; a dash where nothing was measured."""
    return (
        row["name"],
        f"{row['guidance_scale']:g}",
        f"{row['nfe']:g}",
        _interval(row),
        _number(row["accuracy"], "{:.1%}"),
        _number(row["paired_mse"], "{:.4f}"),
        f"{row['images_per_second']:.1f}",
        f"{row['adapter_parameters']:,} ({row['adapter_percent']:.1f} %)" if row["adapter_parameters"] else "-",
    )


def warnings(rows: list[Row]) -> list[str]:
    """Every warning about a number of these rows, once, in order."""
    every = (warning for row in rows for score in row["scores"].values() for warning in score["warnings"])
    return list(dict.fromkeys(every))


def _interval(row: Row) -> str:
    if row["fd"] is None:
        return "-"
    mark = WARNED if row["scores"]["fd"]["warnings"] else ""
    return f"{row['fd']:.2f} ({row['fd_low']:.2f} to {row['fd_high']:.2f}){mark}"


def _number(value: Any, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
