"""Image by image against the guided teacher, and the agreement with what was asked for."""

import dataclasses
import math
import statistics

import pytest
import torch

from agd_core.basics.seeding import generator
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.metrics import METRICS, Measured, Seen
from agd_core.evaluation.metrics.paired import psnr, ssim
from tests.agd_core.evaluation.metrics.memory import peak_growth

CONFIG = EvaluateConfig()
PSNR_OF_MANY = (
    "import torch; from agd_core.evaluation.metrics.paired import psnr; "
    "x = torch.zeros(40000, 32, 32, 1, dtype=torch.uint8);"
    "psnr(x[:2000], x[:2000])",
    "psnr(x, x)",
)
ROUNDING_DB = 10 * math.log10(255**2 * 12)


def pictures(images, side=32, channels=1, seed=0):
    shape = (images, side, side, channels)
    return torch.randint(0, 256, shape, generator=generator("pictures", seed), dtype=torch.uint8)


def seen(count, seed=0, **changes):
    noise = generator("latents", seed)
    latents, features = torch.randn(count, 2, 4, 4, generator=noise), torch.randn(count, 5, generator=noise)
    parts = {"images": pictures(count, seed=seed), "latents": latents, "features": features}
    return Seen(labels=torch.zeros(count, dtype=torch.long), **(parts | changes))


def test_every_score_is_a_mean_over_images():
    samples, guided = seen(20), seen(20, seed=1)
    scores = METRICS["paired"].scores(Measured(samples, guided, None), CONFIG)
    assert set(scores) == {"paired_mse", "psnr", "ssim", "feature_cosine"}
    latents = (samples.latents.double() - guided.latents.double()).square().mean(dim=(1, 2, 3))
    expected = float(latents.mean()), float(latents.std()) / math.sqrt(20)
    assert (scores["paired_mse"].value, scores["paired_mse"].standard_error) == pytest.approx(expected)
    errors = (samples.images.double() - guided.images.double()).square().mean(dim=(1, 2, 3))
    assert scores["psnr"].value == pytest.approx(float((10 * (255**2 / errors).log10()).mean()), rel=1e-9)
    for score in scores.values():
        assert score.high - score.value == pytest.approx(1.96 * score.standard_error)


def test_the_paired_errors_error_is_the_spread_among_sets():
    guided = seen(100, latents=torch.zeros(100, 2, 3, 3))
    sets = [torch.randn(100, 2, 3, 3, generator=generator(seed, "paired")) for seed in range(60)]
    found = [METRICS["paired"].scores(Measured(seen(100, latents=x), guided, None), CONFIG)["paired_mse"] for x in sets]
    spread = statistics.stdev(score.value for score in found)
    assert statistics.fmean(score.standard_error for score in found) == pytest.approx(spread, rel=0.25)


@pytest.mark.parametrize("copied", [False, True])
def test_the_guided_set_itself_has_no_likeness_to_measure(copied):
    guided = seen(5)
    scores = METRICS["paired"].scores(Measured(seen(5) if copied else guided, guided, None), CONFIG)
    assert set(scores) == {"paired_mse"}
    assert scores["paired_mse"].value == 0.0
    assert scores["paired_mse"].standard_error is scores["paired_mse"].low is scores["paired_mse"].high is None


@pytest.mark.parametrize("changed", ["images", "latents"])
def test_sets_that_share_latents_or_images_only_are_measured(changed):
    other = dataclasses.replace(seen(5), **{changed: getattr(seen(5, seed=1), changed)})
    assert "psnr" in METRICS["paired"].scores(Measured(other, seen(5), None), CONFIG)


def test_latents_that_are_no_numbers_stay_none():
    broken = seen(5, latents=torch.full((5, 2, 4, 4), math.nan))
    for guided in (seen(5), broken):
        found = METRICS["paired"].scores(Measured(broken, guided, None), CONFIG)["paired_mse"]
        assert (found.value, found.standard_error, found.low) == (None, None, None)
        assert "paired_mse is no number" in found.warnings[0]


def test_the_batches_of_images_leave_nothing_out():
    a, b = pictures(40, 256), pictures(40, 256, seed=1)
    assert torch.allclose(psnr(a, b), torch.cat([psnr(a[i : i + 1], b[i : i + 1]) for i in range(40)]))


def test_the_memory_does_not_grow_with_the_images():
    """float64 copies of both sets would be 640 MB."""
    assert peak_growth(PSNR_OF_MANY) < 150


def test_psnr_never_falls_when_the_error_does():
    images = torch.full((4, 32, 32, 1), 100, dtype=torch.uint8)
    worse = images.clone()
    for image, pixels in enumerate((0, 1, 200, 1024)):
        worse[image].view(-1)[:pixels] += 1
    values = psnr(images, worse).tolist()
    assert values == sorted(values, reverse=True)
    assert values[:2] == pytest.approx([ROUNDING_DB] * 2)
    assert values[3] == pytest.approx(20 * math.log10(255))


@pytest.mark.parametrize(("side", "channels"), [(32, 1), (48, 3), (11, 1)])
def test_ssim_is_wangs_formula_under_a_gaussian_window(side, channels):
    a, b = pictures(3, side, channels).double(), pictures(3, side, channels, seed=1).double()
    axis = torch.exp(-((torch.arange(11) - 5).double() ** 2) / (2 * 1.5**2))
    window = (torch.outer(axis, axis) / axis.sum() ** 2)[None, None]

    def mean(x):
        padded = torch.nn.functional.pad(x.permute(0, 3, 1, 2), (5, 5, 5, 5), mode="reflect")
        return torch.nn.functional.conv2d(padded.flatten(0, 1)[:, None], window).unflatten(0, (3, channels))

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    variances, product = mean(a * a) - mean(a) ** 2 + mean(b * b) - mean(b) ** 2, mean(a) * mean(b)
    full = (
        (2 * product + c1) / (mean(a) ** 2 + mean(b) ** 2 + c1) * (2 * (mean(a * b) - product) + c2) / (variances + c2)
    )
    assert torch.allclose(ssim(a.to(torch.uint8), b.to(torch.uint8)).double(), full.flatten(1).mean(dim=1), atol=1e-4)


def test_ssim_does_not_depend_on_how_images_are_batched():
    a, b = pictures(40, 256), pictures(40, 256, seed=1)
    assert torch.allclose(ssim(a, b), torch.cat([ssim(a[i : i + 1], b[i : i + 1]) for i in range(40)]), atol=1e-6)


@pytest.mark.parametrize("missing", ["features", "pixels"])
def test_what_cannot_be_compared_is_left_out(missing):
    changes = {"features": {"features": None}, "pixels": {"images": pictures(4, side=8)}}[missing]
    scores = METRICS["paired"].scores(Measured(seen(4, **changes), seen(4, seed=1, **changes), None), CONFIG)
    assert set(scores) == {"paired_mse", "psnr", "ssim", "feature_cosine"} - {
        {"features": "feature_cosine", "pixels": "ssim"}[missing]
    }


def test_one_image_has_no_error():
    score = METRICS["paired"].scores(Measured(seen(1), seen(1, seed=1), None), CONFIG)["paired_mse"]
    assert score.standard_error is score.low is score.high is None


@pytest.mark.parametrize("metric", ["paired", "lpips"])
def test_without_the_guided_set_there_is_no_score(metric):
    assert METRICS[metric].scores(Measured(seen(4), None, None), CONFIG) == {}


@pytest.mark.parametrize(("right", "low", "high"), [(10, 0.67, 1.0), (0, 0.0, 0.33), (5, 0.23, 0.77)])
def test_accuracy_has_the_agresti_coull_interval(right, low, high):
    judged = dataclasses.replace(seen(10), agreement=(torch.arange(10) < right).float(), agreement_metric="accuracy")
    score = METRICS["agreement"].scores(Measured(judged, None, None), CONFIG)["accuracy"]
    assert (score.value, score.low, score.high) == pytest.approx((right / 10, low, high), abs=0.01)


def test_a_clip_score_is_a_plain_mean():
    judged = dataclasses.replace(seen(10), agreement=torch.arange(10) / 10, agreement_metric="clip_score")
    score = METRICS["agreement"].scores(Measured(judged, None, None), CONFIG)["clip_score"]
    assert score.value == pytest.approx(0.45)
    assert score.standard_error == pytest.approx(float((torch.arange(10) / 10).std()) / math.sqrt(10))


def test_without_a_judge_there_is_no_agreement():
    assert METRICS["agreement"].scores(Measured(seen(4), None, None), CONFIG) == {}
