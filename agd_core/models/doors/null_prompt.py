"""Negative prompt embeddings that say nothing new; pipelines that always double the batch may need some.

Such a pipeline cannot join its own empty prompt to positive embeddings of another length, so they are to be given. The
adapter has learnt CFG with an empty prompt, or with one negative prompt: what is that is taken, and so are zeros, which
no text encoder gives.
"""

from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

_ROUNDING, _STEPS = 1e-3, 4
"""How far from the empty prompt's an embedding may be, over the largest value; so many steps in half precision."""
_KNOWN: WeakValueDictionary[tuple[str, int, int], Tensor] = WeakValueDictionary()
"""Tensors that were found to say only this prompt, by id and version: every step of a call asks again."""


def says_only(prompt: str, embeddings: Tensor, pipe: Any, longest: int) -> bool:
    """Whether every token of these is zero or one of this prompt as the pipeline encodes it, whatever number and order.

    Args:
        prompt: empty, or the negative prompt that was learnt.
        embeddings: `[batch, tokens, width]`, or the pooled `[batch, width]`.
        pipe: it encodes the prompt, where it has its text encoders.
        longest: the call's `max_sequence_length`.
    """
    if embeddings.is_inference():
        return _says_only(prompt, embeddings, pipe, longest)
    key = prompt, id(embeddings), embeddings._version
    if _KNOWN.get(key) is not embeddings and _says_only(prompt, embeddings, pipe, longest):
        _KNOWN[key] = embeddings
    return _KNOWN.get(key) is embeddings


def _says_only(prompt: str, embeddings: Tensor, pipe: Any, longest: int) -> bool:
    if not embeddings.any():
        return True
    if None in (pipe.text_encoder, getattr(pipe, "text_encoder_2", pipe.text_encoder)):
        return False
    own = _own(prompt, pipe, longest, pooled=embeddings.ndim == 2).to(embeddings.device)
    precision = max(torch.finfo(each.dtype).eps for each in (own, embeddings))
    tokens, known = embeddings.float().reshape(-1, embeddings.shape[-1]), own.float().reshape(-1, own.shape[-1])
    if tokens.shape[-1] != known.shape[-1]:
        return False
    nearest = torch.cdist(tokens, known, p=float("inf")).amin(1)
    return bool((nearest <= max(_ROUNDING, _STEPS * precision) * known.abs().max()).all())


def _own(prompt: str, pipe: Any, longest: int, pooled: bool) -> Tensor:
    """A prompt as the pipeline encodes it, `[1, tokens, width]`, or its pooled form."""
    with torch.no_grad():
        answers = pipe.encode_prompt(
            prompt=prompt, prompt_2=None, prompt_3=None, do_classifier_free_guidance=False, max_sequence_length=longest
        )
    encoded: Tensor = answers[2 if pooled else 0]
    return encoded
