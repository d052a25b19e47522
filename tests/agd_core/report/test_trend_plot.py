import io
import math
from datetime import date, timedelta

import numpy as np
import pytest
from PIL import Image

from agd_core.evaluation.metrics.regression import Measurement, judge_nights
from agd_core.report.plots import trend_plot

RED = (214, 39, 40)
BAND = (217, 230, 242)


def trend(count, *, worse_from=None, value=0.6):
    days = [(date(2026, 1, 1) + timedelta(days=day)).isoformat() for day in range(count)]
    values = [0.5 + 0.01 * (day % 7) for day in range(count)]
    if worse_from is not None:
        values[worse_from:] = [value] * (count - worse_from)
    measured = [Measurement(day, value, 0.01) for day, value in zip(days, values, strict=True)]
    return judge_nights(measured, "lower")


def pixels(png, colour):
    return int((np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) == colour).all(axis=2).sum())


@pytest.mark.parametrize("count", [1, 2, 200])
@pytest.mark.parametrize("metrics", [1, 5])
def test_any_number_of_nights_is_a_small_picture(count, metrics):
    png = trend_plot({f"metric {number}": trend(count) for number in range(metrics)}, "mine")
    assert Image.open(io.BytesIO(png)).format == "PNG"
    assert len(png) < 300_000


def test_alarms_are_marked():
    quiet, alarmed = (trend_plot({"fd": trend(30, worse_from=night)}, "mine") for night in (None, 20))
    assert pixels(alarmed, RED) > 3 * pixels(quiet, RED) > 0


def test_a_night_without_a_number_is_marked_too():
    quiet, broken = (trend_plot({"fd": trend(30, worse_from=29, value=value)}, "mine") for value in (0.52, math.nan))
    assert pixels(broken, RED) > 100 + pixels(quiet, RED)


def test_the_band_begins_with_the_second_night():
    one, two = (trend_plot({"fd": trend(count)}, "mine") for count in (1, 2))
    assert pixels(two, BAND) > 20 * pixels(one, BAND)


def test_a_night_measured_again_lies_on_its_day():
    again = judge_nights([Measurement(f"2026-01-01{suffix}", 1.0, 0.1) for suffix in ("", "-again")], "lower")
    assert Image.open(io.BytesIO(trend_plot({"fd": again}, "mine"))).format == "PNG"
