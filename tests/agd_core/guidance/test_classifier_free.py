"""The formula, and how many channels it guides."""

import pytest
import torch

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
