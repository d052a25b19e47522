import json

from agd_core.evaluation.rows import plain
from agd_core.report.plots import over_scale_plot, precision_recall_plot
from tests.agd_core.report.made_up import row, score

NAN, INFINITE = float("nan"), float("inf")


def test_what_json_cannot_hold_becomes_null_at_any_depth():
    data = {"rows": [{"fd": NAN, "scores": {"fd": {"value": NAN, "low": -INFINITE, "warnings": ("few",)}}}], "n": 3}
    text = json.dumps(plain(data), allow_nan=False)
    scores = {"fd": {"value": None, "low": None, "warnings": ["few"]}}
    assert json.loads(text) == {"rows": [{"fd": None, "scores": scores}], "n": 3}


def test_what_json_can_hold_stays():
    data = {"a": [0.0, 1, True, None, "NaN", {"b": []}]}
    assert plain(data) == data


def test_plots_leave_out_what_is_no_number():
    lost = {**score(0.5), "value": None}
    names = ("fd", "precision", "recall")
    whole = row("agd", scores={name: score(0.5) for name in names})
    torn = row("agd", teacher_scale=4.0, scores=dict.fromkeys(names, lost))
    assert precision_recall_plot([whole, torn]) == precision_recall_plot([whole])
    assert over_scale_plot([whole, torn], "fd", "FD") == over_scale_plot([whole], "fd", "FD")
