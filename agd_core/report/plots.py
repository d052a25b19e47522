"""Plots as PNG bytes."""

import io
import math
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import cycle
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from agd_core.evaluation.metrics.distance import FD
from agd_core.evaluation.metrics.regression import Band, NightVerdict
from agd_core.evaluation.rows import Row

_LOSS_WINDOW = 50
_SHORT_NAME = 24
"""Letters of a name so short that two stand side by side below a plot."""
_NIGHT, _ALARM, _BAND = "tab:blue", "tab:red", "#d9e6f2"


def loss_plot(losses: Mapping[str, Sequence[float]]) -> bytes:
    """Training loss over steps, one line per network, a moving average over at most 50 steps."""
    figure, axes = _figure("training step", "training loss")
    for (name, values), look in zip(losses.items(), cycle(_ADAPTER_LOOKS), strict=False):
        averaged = _moving_average(values, min(_LOSS_WINDOW, max(1, len(values) // 4)))
        axes.plot(range(len(values) - len(averaged) + 1, len(values) + 1), averaged, color=look.colour, label=name)
    axes.set_yscale("log")
    return _with_key(figure)


def distance_over_nfe_plot(rows: Sequence[Row]) -> bytes:
    """Frechet distance over network evaluations per image, one line per method, bars are 95 % intervals.

    Args:
        rows: of one guidance scale; where they have several schedulers, each is a line of its own.
    """
    figure, axes = _figure("network evaluations per image (NFE)", FD.in_words)
    for line in _lines(rows):
        _draw_line(axes, line, FD.name, [row.nfe for row in line.rows])
    return _with_key(figure)


def over_scale_plot(rows: Sequence[Row], value: str, label: str) -> bytes:
    """One measured value over the teacher's guidance scale, one line per method, bars are 95 % intervals.

    Args:
        rows: of one step count; where they have several schedulers, each is a line of its own.
        value: a metric's name among the rows' scores; rows without it are left out.
        label: how the axis is called.
    """
    figure, axes = _figure("guidance scale", label)
    for line in _lines(rows):
        _draw_line(axes, line, value, [row.teacher_scale for row in line.rows])
    return _with_key(figure)


def precision_recall_plot(rows: Sequence[Row]) -> bytes:
    """Precision over recall (arXiv 1904.06991), a point per method and guidance scale, joined by method.

    The scale stands beside the teacher's points. Rows without both numbers are left out.
    """
    figure, axes = _figure("recall: how much of the real variety", "precision: how real")
    for line in _lines(rows):
        both = [row for row in line.rows if None not in (row.value("precision"), row.value("recall"))]
        recall, precision = ([row.value(name) or 0.0 for row in both] for name in ("recall", "precision"))
        axes.plot(recall, precision, **line.look.arguments, label=line.name)
        for row, x, y in zip(both, recall, precision, strict=True):
            if row.is_teacher:
                axes.annotate(f"{row.teacher_scale:g}", (x, y), (5, 4), textcoords="offset points", fontsize="small")
    return _with_key(figure)


class ErrorCurve(NamedTuple):
    """How far predictions are from guided ones, along sampling."""

    method: str
    """ "none", "cfg" or an adapter kind."""
    timesteps: Sequence[float]
    """What the network was given, in the order of sampling: noise first."""
    errors: Sequence[float]
    """Mean squared error of the prediction as a share of the unguided model's at that step; 1 is no guidance."""
    standard_errors: Sequence[float]


def error_curve_plot(curves: Mapping[str, ErrorCurve]) -> bytes:
    """Prediction error per timestep relative to no guidance, one line per name, bars are standard errors."""
    figure, axes = _figure("timestep (sampling runs from left to right)", "error, share of no guidance")
    looks = _looks({name: curve.method for name, curve in curves.items()})
    for name, curve in curves.items():
        axes.errorbar(
            curve.timesteps, curve.errors, curve.standard_errors, capsize=2, **looks[name].arguments, label=name
        )
    axes.set_ylim(bottom=0)
    axes.xaxis.set_inverted(True)
    return _with_key(figure)


def trend_plot(trends: Mapping[str, Sequence[NightVerdict]], title: str) -> bytes:
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


def _draw_trend(axes: Axes, verdicts: Sequence[NightVerdict]) -> None:
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


def _day(verdict: NightVerdict) -> float:
    """As matplotlib counts days."""
    return float((date.fromisoformat(verdict.measured.night[:10]) - date(1970, 1, 1)).days)


class _Look(NamedTuple):
    colour: str
    marker: str
    dashes: str = "-"

    @property
    def arguments(self) -> dict[str, Any]:
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dashes, "markersize": 5}


class _Line(NamedTuple):
    name: str
    look: _Look
    rows: Sequence[Row]


_TEACHER = "cfg"
_LOOKS = {_TEACHER: _Look("black", "s"), "none": _Look("#8a8f96", "x", "--")}
_ADAPTER_LOOKS = tuple(
    _Look(colour, marker, dashes)
    for dashes in ("-", "--", "-.", ":")
    for colour, marker in zip(("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"), "o^Dv<>", strict=True)
)
"""Okabe and Ito's colours, which colour-blind readers tell apart: https://jfly.uni-koeln.de/color/."""


def _lines(rows: Sequence[Row]) -> list[_Line]:
    """A line per method, and per scheduler where there are several; a method looks the same in every plot."""
    several = len({row.scheduler for row in rows}) > 1
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row.name}, {row.scheduler}" if several else row.name, []).append(row)
    looks = _looks({name: _TEACHER if group[0].is_teacher else group[0].method for name, group in groups.items()})
    return [_Line(name, looks[name], group) for name, group in groups.items()]


def _looks(methods: Mapping[str, str]) -> dict[str, _Look]:
    """The teacher and no guidance always look the same, adapters in their order; from the 25th line on looks repeat."""
    adapters = cycle(_ADAPTER_LOOKS)
    taken: set[str] = set()
    looks = {}
    for name, method in methods.items():
        looks[name] = next(adapters) if method in taken or method not in _LOOKS else _LOOKS[method]
        taken.add(method)
    return looks


def _draw_line(axes: Axes, line: _Line, value: str, positions: Sequence[float]) -> None:
    """One method's values with their 95 % intervals, from left to right; what is no number is left out."""
    points = [
        (position, score.value, score.low, score.high)
        for position, row in sorted(zip(positions, line.rows, strict=True), key=lambda pair: pair[0])
        if (score := row.scores.get(value)) and score.value is not None
    ]
    if not points:
        return
    below = [middle - low if low is not None else 0.0 for _, middle, low, _ in points]
    above = [high - middle if high is not None else 0.0 for _, middle, _, high in points]
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    axes.errorbar(xs, ys, [below, above], capsize=3, elinewidth=1, **line.look.arguments, label=line.name)


def _moving_average(values: Sequence[float], window: int) -> list[float]:
    totals = [0.0]
    for value in values:
        totals.append(totals[-1] + value)
    return [(totals[i] - totals[i - window]) / window for i in range(window, len(totals))]


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    """A figure whose words can be read on a phone, where it is about 8 cm wide."""
    figure = Figure(figsize=(4.8, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _with_key(figure: Figure) -> bytes:
    """The finished picture with the names of its lines below, so that they hide none."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    if handles:
        wide = max(map(len, names)) > _SHORT_NAME
        columns = 1 if wide else 2
        height = 3.6 + 0.2 * -(-len(names) // columns)
        figure.set_size_inches(4.8, height)
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False)
    return _png(figure, dpi=180)


def _png(figure: Figure, dpi: int = 120) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
