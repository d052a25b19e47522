"""What is drawn of the nights of an adapter."""

from flows.stages import verdicts
from flows.stages.night_scores import nightly_names
from flows.stages.verdicts import OF_TEACHER, prefix_of, write_trend
from storage.history import MetricRecord


def record(metric):
    sums, numbers = ["0" * 64] * 3, {"seed": 1, "images": 60, "nfe": 20.0, "seconds": 1.0}
    return MetricRecord(
        "2026-11-21",
        "mine",
        *sums,
        metric=metric,
        value=0.5,
        standard_error=0.1,
        better="higher",
        device="CPU",
        versions="{}",
        finished_at="2026-11-21T00:00:00+00:00",
        **numbers,
    )


def test_every_metric_of_a_night_is_drawn_under_words(tmp_path, monkeypatch):
    """Also those of a model that takes prompts, whose judge is CLIP."""
    drawn = []
    monkeypatch.setattr(verdicts, "trend_plot", lambda trends, title: drawn.extend(trends) or b"a picture")
    of_gate = prefix_of("CFG, rescale 0.7 gate 0.5")
    metrics = [*nightly_names(), *nightly_names(OF_TEACHER), *nightly_names(of_gate)]
    assert {"clip_score", "teacher_clip_score", "paired_mse"} <= set(metrics)
    assert "teacher_paired_mse" not in metrics
    assert "cfg-rescale-0.7-gate-0.5_paired_mse" in metrics
    path = write_trend("mine", [record(metric) for metric in metrics], tmp_path)
    assert path.read_bytes() == b"a picture"
    assert len(drawn) == len(set(drawn)) == len(metrics)
    assert {"class accuracy, teacher", "class accuracy, cfg-rescale-0.7-gate-0.5"} <= set(drawn)
    assert not any("_" in words or words in metrics for words in drawn)
