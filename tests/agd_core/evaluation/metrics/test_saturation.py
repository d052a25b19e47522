"""Chroma and contrast against the guided teacher's: known colours, known shifts, honest intervals."""

import pytest
import torch

from agd_core.basics.seeding import generator
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.metrics import METRICS, Measured, Seen
from agd_core.evaluation.metrics.saturation import looks

CONFIG = EvaluateConfig()


def pixels(colour, count=2, side=4):
    return torch.tensor(colour, dtype=torch.uint8).expand(count, side, side, 3).contiguous()


def seen(images):
    return Seen(images, torch.zeros(len(images), 1, 1, 1), torch.zeros(len(images), dtype=torch.long))


def scores(images, guided):
    return METRICS["saturation"].scores(Measured(seen(images), seen(guided), None), CONFIG)


def noisy(seed, count=100, side=16, width=60):
    """Pictures of one random colour each, with noise."""
    noise = generator("saturation", seed)
    colours = torch.randint(60, 196, (count, 1, 1, 3), generator=noise)
    return (colours + width * (torch.rand(count, side, side, 3, generator=noise) - 0.5)).round().to(torch.uint8)


@pytest.mark.parametrize(
    ("colour", "chroma"),
    [([255, 0, 0], 104.55), ([0, 255, 0], 119.78), ([0, 0, 255], 133.81), ([128, 128, 128], 0.0)],
)
def test_the_chroma_of_known_colours(colour, chroma):
    """Published CIELAB values of sRGB's primaries at D65."""
    assert looks(pixels(colour))[0].tolist() == pytest.approx([chroma] * 2, abs=0.1)


def test_the_contrast_of_a_chessboard_is_a_half():
    images = pixels([0, 0, 0])
    images[:, ::2, ::2], images[:, 1::2, 1::2] = 255, 255
    assert looks(images)[1].tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("factor", [1.2, 0.8])
def test_more_and_less_saturated_images_are_told_apart_from_equal_ones(factor):
    guided = noisy(0)
    grey = guided.float().mean(dim=3, keepdim=True)
    found = scores((grey + factor * (guided.float() - grey)).round().clamp(0, 255).to(torch.uint8), guided)
    shift = found["chroma_shift"]
    assert shift.value == pytest.approx(abs(factor - 1), abs=0.06)
    assert shift.low > 0.05
    assert (float(shift.method.split()[1]) > 1) == (factor > 1)


def test_the_interval_of_equal_pictures_with_other_noise_holds_no_shift():
    found = scores(noisy(0, width=60), noisy(0, width=60).flip(1))
    assert found["contrast_shift"].value == pytest.approx(0.0, abs=1e-9)
    other = scores(noisy(1), noisy(2))
    assert all(score.low == 0.0 or score.value < 4 * score.standard_error for score in other.values())


def test_grey_images_have_a_contrast_alone():
    assert set(scores(noisy(0)[..., :1], noisy(1)[..., :1])) == {"contrast_shift"}


def test_the_guided_set_itself_is_not_measured():
    assert scores(noisy(0), noisy(0)) == {}


def test_a_guided_set_without_any_contrast_gives_no_number_and_says_so():
    found = scores(noisy(0), pixels([7, 7, 7], 100, 16))
    assert found["contrast_shift"].value is None
    assert "contrast_shift is no number" in found["contrast_shift"].warnings[0]
