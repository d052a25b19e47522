"""Captions as tokens: every step draws each picture's own, by a generator, and the empty prompt now and then."""

import torch

from agd_core.basics.seeding import generator
from agd_core.pretraining.emoji.caption_tokens import CaptionTokens
from agd_core.pretraining.emoji.tokenizer import write_tokenizer

CAPTIONS = [["red square", "square, red", "square"], ["dog"], ["cat with hat", "cat, hat"]]
MANY = 4000


def made(tmp_path):
    tokenizer = write_tokenizer([text for each in CAPTIONS for text in each], tmp_path)
    return CaptionTokens.of(tokenizer, CAPTIONS), tokenizer


def words(tokens, tokenizer):
    return tokenizer.batch_decode(tokens, skip_special_tokens=True)


def draw(table, row, plain=0.0, dropped=0.0):
    return table.draw(torch.full((MANY,), row), plain, dropped, generator("captions"))


def spoken(texts, tokenizer):
    return words(tokenizer(texts).input_ids, tokenizer)


def test_a_picture_gets_each_of_its_own_captions_and_no_other(tmp_path):
    table, tokenizer = made(tmp_path)
    for row, captions in enumerate(CAPTIONS):
        found = words(draw(table, row), tokenizer)
        assert set(found) == set(spoken(captions, tokenizer))
        assert min(found.count(text) for text in set(found)) > 0.9 * MANY / len(captions)


def test_the_plain_caption_and_the_empty_prompt_come_as_often_as_asked_for(tmp_path):
    table, tokenizer = made(tmp_path)
    plain, empty = spoken(CAPTIONS[0][:1], tokenizer)[0], ""
    assert set(words(draw(table, 0, plain=1.0), tokenizer)) == {plain}
    assert set(words(draw(table, 0, dropped=1.0), tokenizer)) == {empty}
    assert 0.08 < words(draw(table, 0, dropped=0.1), tokenizer).count(empty) / MANY < 0.12


def test_tokens_are_those_of_the_stock_pipeline(tmp_path):
    table, tokenizer = made(tmp_path)
    asked = tokenizer(["", "dog"], padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    torch.testing.assert_close(draw(table, 1, dropped=1.0)[:1], asked.input_ids[:1])
    torch.testing.assert_close(draw(table, 1)[:1], asked.input_ids[1:])


def test_the_same_generator_draws_the_same(tmp_path):
    table, _ = made(tmp_path)
    assert torch.equal(draw(table, 0, 0.5, 0.1), draw(table, 0, 0.5, 0.1))
