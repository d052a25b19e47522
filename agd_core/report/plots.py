"""Plots as PNG bytes."""

import io
import math
from collections.abc import Mapping, Sequence
from datetime import date

from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from agd_core.metrics.regression import Band, Verdict
from agd_core.report.rows import Row

_LOSS_WINDOW = 50
_NIGHT, _ALARM, _BAND = "tab:blue", "tab:red", "#d9e6f2"


def loss_plot(losses: Mapping[str, Sequence[float]]) -> bytes:
    """Training loss over steps, one line per network, a moving average over at most 50 steps."""
    figure, axes = _figure("training step", "training loss")
    for name, values in losses.items():
        averaged = _moving_average(values, min(_LOSS_WINDOW, max(1, len(values) // 4)))
        axes.plot(range(len(values) - len(averaged) + 1, len(values) + 1), averaged, label=name)
    axes.set_yscale("log")
    axes.legend()
    return _png(figure)


def distance_over_nfe_plot(rows: Sequence[Row]) -> bytes:
    """Frechet distance over network evaluations per image, one line per method, bars are 95 % intervals."""
    figure, axes = _figure("network evaluations per image (NFE)", "Fréchet distance to real images")
    for name, group in _by_name(rows).items():
        points = sorted((row for row in group if row["fd"] is not None), key=lambda row: row["nfe"])
        distances = [row["fd"] or 0.0 for row in points]
        margins = [(row["fd_high"] or 0.0) - (row["fd"] or 0.0) for row in points]
        axes.errorbar([row["nfe"] for row in points], distances, yerr=margins, marker="o", capsize=3, label=name)
    axes.legend()
    return _png(figure)


def over_scale_plot(rows: Sequence[Row], value: str, label: str) -> bytes:
    """One measured value over the teacher's guidance scale, one line per method."""
    figure, axes = _figure("guidance scale", label)
    for name, group in _by_name(rows).items():
        points = sorted((row["teacher_scale"], row[value]) for row in group if row[value] is not None)  # type: ignore[literal-required]
        axes.plot([scale for scale, _ in points], [number for _, number in points], marker="o", label=name)
    axes.legend()
    return _png(figure)


def trend_plot(trends: Mapping[str, Sequence[Verdict]], title: str) -> bytes:
    """Every metric over the nights, one below the other: values with standard errors, bands shaded, alarms marked.

    Args:
        trends: verdicts by night, of one night or more, under the metric's label.
        title: what was measured.
    """
    figure = Figure(figsize=(7.2, 0.8 + 1.6 * len(trends)), layout="constrained")
    panels: list[Axes] = list(figure.subplots(len(trends), sharex=True, squeeze=False)[:, 0])
    for axes, (label, verdicts) in zip(panels, trends.items(), strict=True):
        _draw_trend(axes, verdicts)
        axes.set_title(label, fontsize="medium", loc="left")
    nights = [_day(verdict) for verdicts in trends.values() for verdict in verdicts]
    margin = 1 + (max(nights) - min(nights)) / 50
    panels[-1].set_xlim(min(nights) - margin, max(nights) + margin)
    panels[-1].xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    panels[-1].xaxis.set_major_formatter(DateFormatter("%Y-%m-%d"))  # type: ignore[no-untyped-call]
    figure.suptitle(title)
    figure.legend(handles=_trend_key(), loc="outside lower center", ncols=3, fontsize="small")
    return _png(figure)


def _draw_trend(axes: Axes, verdicts: Sequence[Verdict]) -> None:
    ends = [end for verdict in verdicts if verdict.band for end in _band_ends(_day(verdict), verdict.band)]
    days, lows, highs, centres = zip(*ends, strict=True) if ends else ((), (), (), ())
    axes.fill_between(days, lows, highs, color=_BAND, linewidth=0)
    axes.plot(days, centres, color="tab:gray", linewidth=0.8)
    for regressed, colour in ((False, _NIGHT), (True, _ALARM)):
        chosen = [verdict for verdict in verdicts if verdict.regressed == regressed and verdict.measured.sound]
        values = [verdict.measured.value for verdict in chosen]
        errors = [verdict.measured.standard_error for verdict in chosen]
        axes.errorbar([_day(v) for v in chosen], values, errors, fmt="o", color=colour, markersize=3, elinewidth=0.8)
    for verdict in verdicts:
        if not verdict.measured.sound:
            axes.axvline(_day(verdict), color=_ALARM, linewidth=1.5)
    axes.grid(alpha=0.3)


def _band_ends(day: float, band: Band) -> list[tuple[float, float, float, float]]:
    """Where the band of one night begins and ends, then a gap."""
    edges = [(end, band.low, band.high, band.centre) for end in (day - 0.5, day + 0.5)]
    return [*edges, (day + 0.5, math.nan, math.nan, math.nan)]


def _trend_key() -> list[Line2D | Patch]:
    return [
        Line2D([], [], color=_NIGHT, marker="o", markersize=3, label="a night, with its standard error"),
        Patch(color=_BAND, label="its confidence band"),
        Line2D([], [], color=_ALARM, marker="o", markersize=3, label="regressed; bare line: no number"),
    ]


def _day(verdict: Verdict) -> float:
    """As matplotlib counts days."""
    return float((date.fromisoformat(verdict.measured.night[:10]) - date(1970, 1, 1)).days)


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


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
