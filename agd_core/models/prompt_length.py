"""Prompts that are longer than the text encoders read."""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from agd_core.basics.errors import InputError, first_line
from agd_core.basics.safe_files import printable
from agd_core.models.folder import MODEL_INDEX
from agd_core.models.reading import pipeline_class, read_settings

_SPECIAL_TOKENS = 2
"""Begin and end of a text."""


@dataclass(frozen=True)
class CutPrompts:
    """How many of some prompts are cut, and what of them is read."""

    cut: int
    equal: int
    """Prompts that are the same as an earlier one once they are cut."""
    most_tokens: int
    """What the shortest text encoder reads, begin and end of the text included."""


def cut_prompts(folder: Path, prompts: Sequence[str]) -> CutPrompts | None:
    """What the stock pipeline of a diffusers folder cuts of prompts; None where it reads all of them whole.

    Raises:
        InputError: a tokenizer cannot be loaded.
    """
    limits = dict(_tokenizers(folder)) if any(map(_may_be_long, prompts)) else {}
    read = [tuple(_read(tokenizer, most, prompt) for tokenizer, most in limits.items()) for prompt in prompts]
    cut = sum(any(was_cut for _, was_cut in parts) for parts in read)
    return CutPrompts(cut, len(prompts) - len(set(read)), min(limits.values())) if cut else None


def _may_be_long(prompt: str) -> bool:
    """No tokenizer makes more tokens than there are bytes, and CLIP's, which read least, take 77."""
    return len(prompt.encode()) + _SPECIAL_TOKENS > 77


def _tokenizers(folder: Path) -> list[tuple[Any, int]]:
    """Every tokenizer of the folder, with the tokens that its encoder is given."""
    import diffusers
    import transformers

    index = read_settings(folder / MODEL_INDEX)
    encode = signature(getattr(diffusers, pipeline_class(folder)).encode_prompt).parameters
    asked = encode["max_sequence_length"].default if "max_sequence_length" in encode else None
    found = []
    for name in sorted(part for part in index if part.startswith("tokenizer") and (folder / part).is_dir()):
        try:
            tokenizer = getattr(transformers, index[name][1]).from_pretrained(folder / name, local_files_only=True)
        except Exception as error:  # a damaged folder may raise anything
            reason = printable(first_line(error))
            raise InputError(f"cannot load the tokenizer {printable(folder / name)}: {reason}") from error
        own = asked if asked is not None and "T5" in index[name][1] else tokenizer.model_max_length
        found.append((tokenizer, int(own)))
    return found


def _read(tokenizer: Any, most: int, prompt: str) -> tuple[tuple[int, ...], bool]:
    """The tokens that are read of a prompt, and whether it has more."""
    tokens = tokenizer(prompt, verbose=False).input_ids
    return tuple(tokens[: most - 1]), len(tokens) > most
