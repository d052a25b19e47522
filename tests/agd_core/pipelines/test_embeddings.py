"""Prompt embeddings of a user's own: some form of every call that stock takes works with an adapter."""

import pytest
import torch

import agd_core
from tests.agd_core.pipelines.stock import images, open_miniature, write_adapter


@pytest.fixture
def pipe(adapters):
    opened = open_miniature("tiny-sd3")
    agd_core.load_adapter(opened, adapters("tiny-sd3"))
    return opened


def encoded(pipe, prompt):
    answers = pipe.encode_prompt(prompt=prompt, prompt_2=None, prompt_3=None, device="cpu")
    return answers[0], answers[2]


def call_of(positive, pooled, negative, negative_pooled):
    """Embeddings twice as long as the pipeline's own."""
    twice = {"prompt_embeds": torch.cat([positive, positive], 1), "pooled_prompt_embeds": pooled, "prompt": None}
    return twice | {"negative_prompt_embeds": negative, "negative_pooled_prompt_embeds": negative_pooled}


def test_long_embeddings_beside_an_empty_prompts_or_zeros(pipe):
    (positive, pooled), (empty, empty_pooled) = encoded(pipe, "a red cat"), encoded(pipe, "")
    by_empty = images(pipe, **call_of(positive, pooled, torch.cat([empty, empty], 1), empty_pooled))
    zeros = torch.zeros_like(torch.cat([empty, empty], 1)), torch.zeros_like(pooled)
    assert torch.equal(images(pipe, **call_of(positive, pooled, *zeros)), by_empty)
    unguided = images(pipe, 1.0, **call_of(positive, pooled, *zeros))
    assert (by_empty - unguided).abs().max() > 1e-3
    pipe.text_encoder = pipe.text_encoder_2 = pipe.text_encoder_3 = None
    assert torch.equal(images(pipe, **call_of(positive, pooled, *zeros)), by_empty)


@pytest.mark.parametrize("with_encoders", [True, False])
def test_a_negative_prompt_is_still_refused(pipe, with_encoders):
    (positive, pooled), (ugly, ugly_pooled) = encoded(pipe, "a red cat"), encoded(pipe, "ugly")
    empty, empty_pooled = encoded(pipe, "")
    if not with_encoders:
        pipe.text_encoder = pipe.text_encoder_2 = pipe.text_encoder_3 = None
    long = torch.cat([empty, ugly], 1)
    with pytest.raises(agd_core.InputError, match=r"negative_prompt_embeds has no effect.*give zeros of their shape"):
        images(pipe, **call_of(positive, pooled, long, empty_pooled))
    changed = torch.zeros_like(long)
    assert torch.isfinite(images(pipe, **call_of(positive, pooled, changed, torch.zeros_like(pooled)))).all()
    changed.copy_(long)
    with pytest.raises(agd_core.InputError, match="negative_prompt_embeds has no effect"):
        images(pipe, **call_of(positive, pooled, changed, torch.zeros_like(pooled)))
    with pytest.raises(agd_core.InputError, match="negative_pooled_prompt_embeds has no effect"):
        images(pipe, **call_of(positive, pooled, torch.zeros_like(long), ugly_pooled))


def test_embeddings_of_the_negative_prompt_that_was_learnt(tmp_path):
    learnt = {"kind": "cfg", "negative_prompt": "ugly"}
    pipe = open_miniature("tiny-sd3")
    agd_core.load_adapter(pipe, write_adapter(tmp_path / "negative", "tiny-sd3", guidance=learnt))
    (positive, pooled), (ugly, ugly_pooled) = encoded(pipe, "a red cat"), encoded(pipe, "ugly")
    by_ugly = images(pipe, **call_of(positive, pooled, torch.cat([ugly, ugly], 1), ugly_pooled))
    zeros = torch.zeros_like(torch.cat([ugly, ugly], 1)), torch.zeros_like(pooled)
    assert torch.equal(images(pipe, **call_of(positive, pooled, *zeros)), by_ugly)
    empty, empty_pooled = encoded(pipe, "")
    with pytest.raises(agd_core.InputError, match=r"negative_prompt_embeds has no effect.*give zeros .* or 'ugly''s"):
        images(pipe, **call_of(positive, pooled, torch.cat([empty, empty], 1), empty_pooled))


def test_embeddings_with_masks(adapters):
    pipe = open_miniature("tiny-pixart")
    agd_core.load_adapter(pipe, adapters("tiny-pixart"))
    positive, mask, empty, empty_mask = pipe.encode_prompt("a red cat", device="cpu")
    given = {"prompt": None, "prompt_embeds": positive, "prompt_attention_mask": mask, "negative_prompt": None}
    empty = {"negative_prompt_embeds": empty, "negative_prompt_attention_mask": empty_mask}
    assert torch.allclose(images(pipe, **given, **empty), images(pipe), atol=1e-5)
    ugly = empty | {"negative_prompt_embeds": pipe.encode_prompt("ugly", device="cpu")[0]}
    with pytest.raises(agd_core.InputError, match="negative_prompt_embeds has no effect"):
        images(pipe, **given, **ugly)
