"""One line of the results table, the same in the terminal, in metrics.json and in the report."""

from typing import Any, TypedDict


class Row(TypedDict):
    """What one method reached at one guidance scale and step count."""

    name: str
    """How the report calls the method."""
    method: str
    """ "none", "cfg" or an adapter kind."""
    guidance_scale: float
    steps: int
    teacher_scale: float
    """Guidance scale of the CFG samples that `paired_mse` compares with."""
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


def _interval(row: Row) -> str:
    if row["fd"] is None:
        return "-"
    return f"{row['fd']:.2f} ({row['fd_low']:.2f} to {row['fd_high']:.2f})"


def _number(value: Any, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)
