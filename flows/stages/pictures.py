"""The plots of a report."""

from collections.abc import Sequence

from agd_core.evaluation.metrics.distance import FD
from agd_core.evaluation.rows import Row
from agd_core.report.columns import measured
from agd_core.report.page import Picture
from agd_core.report.plots import (
    ErrorCurve,
    distance_over_nfe_plot,
    error_curve_plot,
    loss_plot,
    over_scale_plot,
    precision_recall_plot,
)
from flows.stages.comparison import TrainedAdapters
from flows.stages.extras import Extras
from flows.stages.train import LOSSES

_EQUAL_NOISE = "All methods start from the same noise, with the same classes or prompts."


def plots(headline: Sequence[Row], curve: Sequence[Row], trained: TrainedAdapters, extras: Extras) -> list[Picture]:
    """Every plot for which there is something to draw.

    Args:
        headline: what was compared with the headline's sampler and steps.
        curve: what was compared at the headline's scale.
        trained: the adapters.
        extras: prediction errors among them.
    """
    return [
        *_over_scale(headline),
        *_over_nfe(curve),
        *_precision_recall(headline),
        *_errors(headline, extras),
        _loss(trained),
    ]


def _over_scale(rows: Sequence[Row]) -> list[Picture]:
    if len({row.teacher_scale for row in rows}) < 2:
        return []
    return [
        Picture(
            f"{found.heading} over scale",
            f"{found.in_words} over the guidance scale. {_EQUAL_NOISE}",
            over_scale_plot(rows, found.name, found.in_words),
        )
        for found in measured(rows)
        if found.headline
    ]


def _over_nfe(rows: Sequence[Row]) -> list[Picture]:
    if not any(FD.name in row.scores for row in rows):
        return []
    caption = f"Quality for cost: {FD.in_words} over network evaluations per image, at the headline's scale."
    return [Picture(f"{FD.heading} over NFE", caption, distance_over_nfe_plot(rows))]


def _precision_recall(rows: Sequence[Row]) -> list[Picture]:
    if not any("precision" in row.scores for row in rows):
        return []
    caption = (
        "Precision (samples look real) over recall (all that is real is covered), at the headline's sampler and steps; "
        "numbers are guidance scales."
    )
    return [Picture("Precision and recall", caption, precision_recall_plot(rows))]


def _errors(rows: Sequence[Row], extras: Extras) -> list[Picture]:
    found = extras.prediction_errors()
    if found is None:
        return []
    kinds = {row.name: row.method for row in rows}
    curves = {}
    for name, points in found["points"].items():
        kept = [point for point in points if point["relative"] is not None]
        columns = ([point[key] or 0.0 for point in kept] for key in ("timestep", "relative", "relative_standard_error"))
        curves[name] = ErrorCurve(kinds[name], *columns)
    caption = (
        f"Error of every single prediction against the guided one, on the teacher's own latents: {found['images']} "
        f"images, scale {found['guidance_scale']:g}, {found['steps']} {found['scheduler']} steps. 1 is no guidance, "
        "0 is the teacher."
    )
    return [Picture("Prediction error", caption, error_curve_plot(curves))]


def _loss(trained: TrainedAdapters) -> Picture:
    losses = {config.label: artefact.json(LOSSES, list[float]) for config, artefact in trained}
    return Picture("Training loss", "Distillation loss, a moving average over at most 50 steps.", loss_plot(losses))
