"""A metric from outside: one object and one line, and it is measured, keyed, shown and compared."""

import pytest

from agd_core.evaluation.comparing.comparison import Choice, compare
from agd_core.evaluation.comparing.row_pairs import Source
from agd_core.evaluation.metrics import METRICS, Metric, Quantity
from agd_core.evaluation.metrics.scores import mean_score
from agd_core.report.columns import explained, tables
from agd_core.report.page import Page, render_page
from flows.presets import load_config
from flows.run import Run
from flows.stages import comparison
from flows.stages.comparison import headline_points
from flows.workplace import Workplace

BRIGHTNESS = Quantity("brightness", "higher", "brightness", "{:.1f}", "Mean of all pixels, 0 to 255.")


def brightness(measured, settings):
    values = measured.samples.images.double().flatten(1).mean(dim=1)
    return {BRIGHTNESS.name: mean_score(BRIGHTNESS, values, "mean over images")}


@pytest.fixture
def rows(monkeypatch, teacher, tmp_path):
    monkeypatch.setitem(METRICS, "brightness", Metric("brightness", (BRIGHTNESS,), brightness))
    changes = ("sample.images=8", "sample.steps=2", "evaluate.extractor=none", "evaluate.metrics=[brightness,paired]")
    config = load_config("fashion-dit", ["sample.curve_steps=[]", *changes])
    found = comparison.compare(Run(config, Workplace(tmp_path), teacher), [], headline_points(config)[:1])
    return [item.row for item in found]


def test_it_is_measured_shown_and_compared(rows):
    assert all(0 < row.scores["brightness"].low < row.value("brightness") < 255 for row in rows)
    (table,) = tables(rows)
    assert "brightness ↑" in table.headings
    assert explained(rows)["brightness ↑"] == BRIGHTNESS.meaning
    page = render_page(Page("t", "s", rows, [], [], {}, {}, "agd"))
    assert f"{rows[0].value('brightness'):.1f}" in page
    assert BRIGHTNESS.meaning in page
    both = [Source(label, label, rows) for label in "AB"]
    (compared,), _ = compare(both, Choice(methods=["CFG"], metrics=["brightness"]))
    assert compared.verdict == "same"
