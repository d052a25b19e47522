"""The formula, and how many channels it guides."""

import pytest
import torch
from pydantic import ValidationError

from agd_core.basics.errors import InputError
from agd_core.guidance import ClassifierFreeGuidance, GuidanceCall


def combined(rule, conditional, unconditional, *scales):
    call = GuidanceCall(torch.tensor(scales), torch.full((len(scales),), 500.0), {})
    return rule.combine({"conditional": conditional, "unconditional": unconditional}, call)


def test_guidance_is_one_formula():
    cond, uncond = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    rule = ClassifierFreeGuidance()
    assert torch.allclose(combined(rule, cond, uncond, 1.0, 1.0), cond, atol=1e-6)
    assert torch.allclose(combined(rule, cond, uncond, 0.0, 0.0), uncond)
    rowwise = combined(rule, cond, uncond, 1.0, 3.0)
    assert torch.allclose(rowwise[0], cond[0], atol=1e-6)
    assert torch.allclose(rowwise[1], 3 * cond[1] - 2 * uncond[1], atol=1e-5)


def test_three_guided_channels_leave_the_fourth_conditional():
    cond, uncond = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    guided = combined(ClassifierFreeGuidance(guided_channels=3), cond, uncond, 4.0)
    assert torch.equal(guided[:, 3], cond[:, 3])
    assert torch.allclose(guided[:, :3], (uncond + 4 * (cond - uncond))[:, :3])


def test_more_guided_channels_than_there_are_is_one_clear_line(teacher):
    ClassifierFreeGuidance(guided_channels=4).check(teacher)
    with pytest.raises(InputError, match=r"guidance.guided_channels 5 exceeds the 4 channels"):
        ClassifierFreeGuidance(guided_channels=5).check(teacher)


def test_rescaling_gives_each_row_its_deviation_without_guidance():
    cond, uncond = (torch.tensor(rows).reshape(2, 1, 1, 2) for rows in ([[1.0, 3.0], [5.0, 6.0]], [[2.0, 2.0]] * 2))
    whole = combined(ClassifierFreeGuidance(rescale=1.0), cond, uncond, 3.0, 5.0)
    # guided (-1, 5) and (17, 22): deviations 3 and 5 times those of (1, 3) and (5, 6)
    assert torch.allclose(whole.flatten(1), torch.tensor([[-1 / 3, 5 / 3], [17 / 5, 22 / 5]]))
    assert torch.allclose(whole.flatten(1).std(1), cond.flatten(1).std(1))
    part = combined(ClassifierFreeGuidance(rescale=0.25), cond, uncond, 3.0, 5.0)
    assert torch.allclose(part.flatten(1)[0], torch.tensor([0.25 * -1 / 3 - 0.75, 0.25 * 5 / 3 + 0.75 * 5]))


def test_rescaling_at_a_scale_of_one_is_the_conditional_prediction_bit_for_bit():
    cond, uncond = torch.randn(3, 4, 3, 3), torch.randn(3, 4, 3, 3)
    guided = combined(ClassifierFreeGuidance(rescale=0.7), cond, uncond, 1.0, 4.0, 1.0)
    assert torch.equal(guided[::2], cond[::2])
    assert not torch.allclose(guided[1], cond[1], atol=1e-2)


def test_what_is_not_guided_is_not_rescaled():
    cond, uncond = torch.randn(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    guided = combined(ClassifierFreeGuidance(rescale=0.7, guided_channels=3), cond, uncond, 4.0)
    assert torch.equal(guided[:, 3], cond[:, 3])
    alone = combined(ClassifierFreeGuidance(rescale=0.7), cond[:, :3], uncond[:, :3], 4.0)
    assert torch.allclose(guided[:, :3], alone)


def test_rescaling_is_diffusers_own():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    cond, uncond = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    plain = combined(ClassifierFreeGuidance(), cond, uncond, 7.5, 2.0)
    rescaled = combined(ClassifierFreeGuidance(rescale=0.7), cond, uncond, 7.5, 2.0)
    assert torch.allclose(rescaled, rescale_noise_cfg(plain, cond, 0.7), atol=1e-6)


def test_without_rescaling_a_rule_is_what_it_was_before_there_was_any():
    assert ClassifierFreeGuidance().identity() == {"kind": "cfg", "guided_channels": None}
    assert ClassifierFreeGuidance(rescale=0.7).identity() == {"kind": "cfg", "guided_channels": None, "rescale": 0.7}
    assert [ClassifierFreeGuidance(rescale=phi).label for phi in (0.0, 0.7)] == ["CFG", "CFG, rescale 0.7"]


@pytest.mark.parametrize("phi", [-0.1, 1.1, float("nan")])
def test_rescaling_is_a_share(phi):
    with pytest.raises(ValidationError, match="rescale"):
        ClassifierFreeGuidance(rescale=phi)
