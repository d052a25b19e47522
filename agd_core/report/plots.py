"""Plots as PNG bytes."""

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agd_core.report.rows import Row

_LOSS_WINDOW = 50


def loss_plot(losses: Mapping[str, Sequence[float]]) -> bytes:
    """Training loss over steps, one line per network, averaged over 50 steps."""
    figure, axes = _figure("training step", "training loss")
    for name, values in losses.items():
        averaged = _moving_average(values, min(_LOSS_WINDOW, len(values)))
        axes.plot(range(len(values) - len(averaged) + 1, len(values) + 1), averaged, label=name)
    axes.set_yscale("log")
    return _png(figure, axes)


def distance_over_nfe_plot(rows: Sequence[Row]) -> bytes:
    """Frechet distance over network evaluations per image, one line per method, bars are 95 % intervals."""
    figure, axes = _figure("network evaluations per image (NFE)", "Fréchet distance to real images")
    for name, group in _by_name(rows).items():
        points = sorted((row for row in group if row["fd"] is not None), key=lambda row: row["nfe"])
        distances = [row["fd"] or 0.0 for row in points]
        margins = [(row["fd_high"] or 0.0) - (row["fd"] or 0.0) for row in points]
        axes.errorbar([row["nfe"] for row in points], distances, yerr=margins, marker="o", capsize=3, label=name)
    return _png(figure, axes)


def over_scale_plot(rows: Sequence[Row], value: str, label: str) -> bytes:
    """One measured value over the teacher's guidance scale, one line per method."""
    figure, axes = _figure("guidance scale", label)
    for name, group in _by_name(rows).items():
        points = sorted((row["teacher_scale"], row[value]) for row in group if row[value] is not None)  # type: ignore[literal-required]
        axes.plot([scale for scale, _ in points], [number for _, number in points], marker="o", label=name)
    return _png(figure, axes)


def _by_name(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["name"], []).append(row)
    return groups


def _moving_average(values: Sequence[float], window: int) -> list[float]:
    totals = [0.0]
    for value in values:
        totals.append(totals[-1] + value)
    return [(totals[i] - totals[i - window]) / window for i in range(window, len(totals))]


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _png(figure: Figure, axes: Axes) -> bytes:
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
