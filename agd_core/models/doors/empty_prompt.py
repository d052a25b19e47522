"""Negative prompt embeddings that say nothing; pipelines that always double the batch may need some.

Such a pipeline cannot join its own empty prompt to positive embeddings of another length, so they are to be given. The
adapter has learnt CFG with an empty prompt: what is one is taken, and so are zeros, which no text encoder gives.
"""

from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

_ROUNDING, _STEPS = 1e-3, 4
"""How far from the empty prompt's an embedding may be, over the largest value; so many steps in half precision."""
_EMPTY: WeakValueDictionary[tuple[int, int], Tensor] = WeakValueDictionary()
"""Tensors that were found to be so, by id and version: every step of a call asks again."""


def is_empty_prompt(embeddings: Tensor, pipe: Any, longest: int) -> bool:
    """Whether every token of these is zero or one of the pipeline's own empty prompt, in whatever number and order.

    Args:
        embeddings: `[batch, tokens, width]`, or the pooled `[batch, width]`.
        pipe: it encodes an empty prompt, where it has its text encoders.
        longest: the call's `max_sequence_length`.
    """
    if embeddings.is_inference():
        return _is_empty(embeddings, pipe, longest)
    key = id(embeddings), embeddings._version
    if _EMPTY.get(key) is not embeddings and _is_empty(embeddings, pipe, longest):
        _EMPTY[key] = embeddings
    return _EMPTY.get(key) is embeddings


def _is_empty(embeddings: Tensor, pipe: Any, longest: int) -> bool:
    if not embeddings.any():
        return True
    if None in (pipe.text_encoder, getattr(pipe, "text_encoder_2", pipe.text_encoder)):
        return False
    own = _own(pipe, longest, pooled=embeddings.ndim == 2).to(embeddings.device)
    precision = max(torch.finfo(each.dtype).eps for each in (own, embeddings))
    tokens, known = embeddings.float().reshape(-1, embeddings.shape[-1]), own.float().reshape(-1, own.shape[-1])
    if tokens.shape[-1] != known.shape[-1]:
        return False
    nearest = torch.cdist(tokens, known, p=float("inf")).amin(1)
    return bool((nearest <= max(_ROUNDING, _STEPS * precision) * known.abs().max()).all())


def _own(pipe: Any, longest: int, pooled: bool) -> Tensor:
    """The pipeline's empty prompt, `[1, tokens, width]`, or its pooled form."""
    with torch.no_grad():
        answers = pipe.encode_prompt(
            prompt="", prompt_2=None, prompt_3=None, do_classifier_free_guidance=False, max_sequence_length=longest
        )
    empty: Tensor = answers[2 if pooled else 0]
    return empty
