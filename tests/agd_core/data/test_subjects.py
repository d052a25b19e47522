"""Prompts are encoded once, whoever asks for them and however often."""

import pytest
import torch

from agd_core.data.subjects import EncodedPrompts, Subjects
from flows.presets import load_config

COLLECTED = tuple(f"picture {number}" for number in range(5))
SAMPLED = (*(f"photograph {number}" for number in range(4)), COLLECTED[-1])


@pytest.fixture(scope="module")
def model():
    return load_config("tiny-sd").base_model.build(torch.device("cpu"))


@pytest.fixture
def asked(model, monkeypatch):
    """The prompts of every call of the text encoders."""
    calls, encode = [], model.prompt_condition
    monkeypatch.setattr(model, "prompt_condition", lambda prompts: calls.append(tuple(prompts)) or encode(prompts))
    return calls


def both(model):
    shared = EncodedPrompts(model, (*COLLECTED, *SAMPLED))
    return Subjects(model, COLLECTED, shared), Subjects(model, SAMPLED, shared)


def test_a_run_encodes_all_of_its_prompts_in_one_go_whatever_asks_for_them(model, asked):
    for subjects in both(model) * 3:
        subjects.condition([3, 1])
        subjects.condition(range(len(subjects)))
    assert asked == [(*COLLECTED, *SAMPLED[:-1])]


def test_what_is_not_asked_for_is_not_encoded(model, asked):
    collected, sampled = both(model)
    sampled.condition([0])
    assert asked == [(COLLECTED[-1], *SAMPLED[:-1])]
    collected.condition([2])
    assert asked[1:] == [COLLECTED[:-1]]


def test_every_row_is_the_prompt_that_was_asked_for(model):
    _, sampled = both(model)
    rows = [4, 0, 2]
    found = sampled.condition(rows).tensors()
    for name, tensor in model.prompt_condition([SAMPLED[row] for row in rows]).tensors().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5)
