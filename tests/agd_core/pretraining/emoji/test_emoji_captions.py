"""Captions and their tokenizer."""

import json
from collections import Counter

import pytest
import torch
from transformers import CLIPTokenizer

from agd_core.pretraining.emoji.captions import all_captions, captions_of, plain_caption
from agd_core.pretraining.emoji.tokenizer import END, load_tokenizer, write_tokenizer

NAMES = ("fire engine", "red heart", "smiling face with heart eyes", "cat", "3rd place medal", "jack o lantern")
CAPTIONS = [caption for name in NAMES for style in ("noto", "3d") for caption in all_captions(name, style)]
FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(CAPTIONS, path)
    return path


def test_a_prompt_is_name_and_style():
    assert plain_caption("fire engine", "noto") == "fire engine, noto style" == all_captions("fire engine", "noto")[0]


def test_colours_and_attributes_come_in_other_orders_too():
    assert "heart, red, noto style" in all_captions("red heart", "noto")
    assert "cat, hat, noto style" in all_captions("cat with hat", "noto")
    assert not any("engine, fire" in caption for caption in all_captions("fire engine", "noto"))
    assert all_captions("red", "noto")[0] == "red, noto style"


def test_captions_follow_the_generator_and_half_are_plain():
    draw = torch.Generator().manual_seed(0)
    drawn = [captions_of("red heart", "noto", draw) for _ in range(400)]
    again = torch.Generator().manual_seed(0)
    assert drawn == [captions_of("red heart", "noto", again) for _ in range(400)]
    counts = Counter(drawn)
    assert set(counts) == set(all_captions("red heart", "noto"))
    assert 180 < counts["red heart, noto style"] < 280


def test_every_caption_is_read_whole_and_every_common_word_is_one_token(folder):
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    lengths = [len(ids) for ids in tokenizer(CAPTIONS).input_ids]
    assert max(lengths) <= tokenizer.model_max_length <= max(lengths) + 7
    assert tokenizer.tokenize("fire engine, noto style") == ["fire</w>", "engine</w>", ",</w>", "noto</w>", "style</w>"]
    assert tokenizer.decode(tokenizer("smiling face").input_ids, skip_special_tokens=True) == "smiling face"


def test_captions_are_padded_to_one_length_with_the_end_as_in_clip(folder):
    tokenizer = load_tokenizer(folder)
    ids = tokenizer(
        ["cat", "red heart, 3d style"], padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    assert ids.shape == (2, tokenizer.model_max_length)
    assert tokenizer.pad_token == tokenizer.eos_token == END
    assert tokenizer.eos_token_id == len(tokenizer) - 1 == ids.max()
    assert ids.argmax(1).tolist() == [2, 7], "CLIP finds the end as the largest number"


def test_any_text_can_be_written(folder):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.decode(tokenizer("Zebra é").input_ids, skip_special_tokens=True) == "zebra é"


def test_the_same_captions_in_any_order_give_the_same_bytes(folder, tmp_path):
    write_tokenizer(CAPTIONS[::2] + CAPTIONS[1::2][::-1], tmp_path)
    assert [(tmp_path / name).read_bytes() for name in FILES] == [(folder / name).read_bytes() for name in FILES]


def test_the_files_are_clips(folder):
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert sorted(vocabulary.values()) == list(range(512 + len(merges) + 2))
    assert all(vocabulary[merge.replace(" ", "")] == 512 + number for number, merge in enumerate(merges))
