"""Retrieval: shares of first and fifth places, with their intervals."""

from dataclasses import replace

import torch

from agd_core.evaluation.metrics import METRICS, Measured, MetricSettings
from tests.agd_core.evaluation.metrics.examples import seen


def test_shares_are_counted_from_places():
    ranks = torch.tensor([[1, 1], [2, 1], [5, 2], [6, 1]])
    scores = METRICS["retrieval"].scores(
        Measured(replace(seen(0, 4), ranks=ranks), None, None), MetricSettings(metrics=("retrieval",))
    )
    assert {name: score.value for name, score in scores.items()} == {
        "name_top1": 0.25,
        "name_top5": 0.75,
        "style_top1": 0.75,
    }
    assert all(score.low < score.value < score.high for score in scores.values())
