"""The tokenizer of these captions: CLIP's own byte-pair format, with a vocabulary of these words.

CLIP's layout: 256 bytes, the same at a word's end, the merges in order, begin, end. So the last token has the largest
number, as in CLIP. Byte-pair encoding: https://arxiv.org/abs/1508.07909, section 3.2.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from transformers import CLIPTokenizer

from agd_core.basics.atomic import write_bytes, write_json

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_MARKS = {"bos_token": BEGIN, "eos_token": END, "pad_token": END, "unk_token": END}
VOCABULARY = 4096
"""Most tokens; the words of all base emoji and their styles need few more to be one token each."""
_STEP = 8


def write_tokenizer(captions: Iterable[str], folder: Path) -> CLIPTokenizer:
    """Make a tokenizer out of captions and write `vocab.json`, `merges.txt` and its configuration.

    The same captions in any order give the same bytes. It pads and cuts to a multiple of 8 tokens, which cuts none.

    Args:
        captions: every caption counts as often as it comes.
        folder: where to write; `CLIPTokenizer.from_pretrained(folder)` reads it.
    """
    texts = sorted(captions)
    merges = _merges(texts)
    letters = _alphabet()
    tokens = [*letters, *(letter + _WORD_END for letter in letters), *("".join(pair) for pair in merges), BEGIN, END]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    longest = _longest(CLIPTokenizer(vocabulary, merges), texts)
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": -(-longest // _STEP) * _STEP, **_MARKS}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    write_bytes(json.dumps(vocabulary, ensure_ascii=False).encode(), folder / "vocab.json")
    write_bytes("\n".join(lines).encode(), folder / "merges.txt")
    write_json(config, folder / "tokenizer_config.json")
    return load_tokenizer(folder)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer of a folder on this machine."""
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def _longest(tokenizer: CLIPTokenizer, captions: list[str]) -> int:
    """Tokens of the longest caption, begin and end included."""
    return max(len(ids) for ids in tokenizer(captions, truncation=False, verbose=False).input_ids)


def _alphabet() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _merges(captions: list[str]) -> list[tuple[str, str]]:
    """What the library `tokenizers` learns on words as CLIP cuts them."""
    from tokenizers.trainers import BpeTrainer

    learner = CLIPTokenizer().backend_tokenizer
    trainer = BpeTrainer(
        vocab_size=VOCABULARY - 2,
        initial_alphabet=_alphabet(),
        end_of_word_suffix=_WORD_END,
        show_progress=False,
        special_tokens=[letter + _WORD_END for letter in _alphabet()],
    )
    learner.train_from_iterator(captions, trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]
