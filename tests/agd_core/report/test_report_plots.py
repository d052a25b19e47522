import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from agd_core.report.plots import (
    ErrorCurve,
    distance_over_nfe_plot,
    error_curve_plot,
    loss_plot,
    over_scale_plot,
    precision_recall_plot,
)
from tests.agd_core.report.made_up import METHODS, full_row, row, score

FIRST_ADAPTER, SECOND_ADAPTER, NO_GUIDANCE = "#0072b2", "#d55e00", "#8a8f96"
ROWS = [full_row(name, scale) for scale in (1.5, 2.0, 3.0) for name in METHODS]
PLOTS = {
    "fd over scale": lambda rows: over_scale_plot(rows, "fd", "FD"),
    "fd over NFE": distance_over_nfe_plot,
    "precision and recall": precision_recall_plot,
}


def pixels(png, colour):
    """How many pixels have this colour, up to what the smoothing of lines leaves."""
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return int((np.abs(picture - np.array(to_rgb(colour)) * 255).max(axis=2) < 6).sum())


@pytest.mark.parametrize("plot", PLOTS)
def test_a_method_has_one_colour_in_every_plot(plot):
    png = PLOTS[plot](ROWS)
    assert all(pixels(png, colour) > 200 for colour in (FIRST_ADAPTER, SECOND_ADAPTER, NO_GUIDANCE, "black"))
    without = PLOTS[plot]([item for item in ROWS if item.name != "agd-offset"])
    assert pixels(without, SECOND_ADAPTER) == 0


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("rows", [[], [row("CFG", scores={})], ROWS[:1]], ids=["no rows", "no metric", "one point"])
def test_a_plot_of_little_is_a_plot(plot, rows):
    picture = Image.open(io.BytesIO(PLOTS[plot](rows)))
    assert picture.format == "PNG"
    assert picture.width == 864


def test_intervals_are_drawn():
    wide, narrow = (
        over_scale_plot(
            [row("agd", teacher_scale=s, scores={"fd": score(1.0, width=w)}) for s in (1.0, 2.0)], "fd", "FD"
        )
        for w in (0.5, None)
    )
    assert pixels(wide, FIRST_ADAPTER) > pixels(narrow, FIRST_ADAPTER) + 500


def test_what_is_no_number_is_left_out():
    finite = [row("agd", teacher_scale=s, scores={"psnr": score(20.0 + s, "higher")}) for s in (1.0, 2.0)]
    endless = row("agd", teacher_scale=1.5, scores={"psnr": {**score(1.0, "higher"), "value": None}})
    assert over_scale_plot([finite[0], endless, finite[1]], "psnr", "PSNR") == over_scale_plot(finite, "psnr", "PSNR")


def test_the_order_of_rows_does_not_matter():
    rows = [row("agd", nfe=nfe, scores={"fd": score(1 / nfe)}) for nfe in (10.0, 20.0, 40.0)]
    assert distance_over_nfe_plot(rows[::-1]) == distance_over_nfe_plot(rows)


def test_every_scheduler_is_a_line_of_its_own():
    rows = [
        item.model_copy(update={"scheduler": name}) for item in ROWS if item.name == "CFG" for name in ("ddim", "euler")
    ]
    assert pixels(over_scale_plot(rows, "fd", "FD"), FIRST_ADAPTER) > 200


def test_the_error_curve_begins_at_zero_and_shows_standard_errors():
    def curve(error):
        errors = [0.2, 0.3, 0.2]
        return error_curve_plot({"agd": ErrorCurve("agd", [900.0, 500.0, 100.0], errors, [error] * 3)})

    assert pixels(curve(0.1), FIRST_ADAPTER) > pixels(curve(0.0), FIRST_ADAPTER) + 200


def test_forty_adapters_are_forty_lines():
    losses = {f"adapter {number}": [1.0 / (1 + step + number) for step in range(9)] for number in range(40)}
    assert (
        Image.open(io.BytesIO(loss_plot(losses))).height
        >= 2 * Image.open(io.BytesIO(loss_plot({"a": [1.0, 0.5]}))).height
    )
