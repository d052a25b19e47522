"""The judge's training: it learns, resumes to the same bits, and is tested on pictures that it never saw."""

import pytest
import torch

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.progress import Stopped
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.captions import all_captions
from agd_core.pretraining.emoji.images import EmojiImages
from agd_core.pretraining.emoji.judge import (
    build_judge,
    contrastive_loss,
    judge_loop,
    read,
    split_for_judge,
)
from agd_core.pretraining.emoji.tokenizer import write_tokenizer
from tests.emoji_pictures import tiny_judge_recipe

TINY = tiny_judge_recipe(steps=30, batch_size=8, held_out=2, learning_rate=3e-3)
NAMES, STYLES = ("cat", "dog", "bell", "sun"), ("flat", "noto", "blob")


@pytest.fixture(scope="module")
def images():
    """A colour per name and another one per style."""
    pairs = [(name, style) for name in NAMES for style in STYLES]
    pixels = torch.full((len(pairs), 64, 64, 3), 255, dtype=torch.uint8)
    for row, (name, style) in enumerate(pairs):
        pixels[row, :32, :, 0] = 80 * NAMES.index(name)
        pixels[row, 32:, :, 1] = 100 * STYLES.index(style)
    names, styles = zip(*pairs, strict=True)
    return EmojiImages(pixels, names, styles, ("train",) * 12, ("",) * 12, torch.ones(12, dtype=torch.bool))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    captions = [caption for name in NAMES for style in STYLES for caption in all_captions(name, style)]
    return write_tokenizer(captions, tmp_path_factory.mktemp("tokenizer"))


def run(images, tokenizer, path, should_stop=lambda: False):
    torch.manual_seed(0)
    model = build_judge(tokenizer, TINY)
    ema = Ema(model, TINY.ema_decay)
    losses = judge_loop(model, ema, tokenizer, images, TINY, Checkpoint(path, "one")).run(should_stop=should_stop)
    return losses, ema.average.state_dict()


def test_it_learns_and_resumes_to_the_same_bits(images, tokenizer, tmp_path):
    losses, whole = run(images, tokenizer, tmp_path / "whole.safetensors")
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    polls = iter([False] * 9 + [True])
    with pytest.raises(Stopped):
        run(images, tokenizer, tmp_path / "part.safetensors", lambda: next(polls))
    again, resumed = run(images, tokenizer, tmp_path / "part.safetensors")
    assert again == pytest.approx(losses, abs=0)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())


def test_pictures_with_the_same_words_are_all_right(images, tokenizer):
    torch.manual_seed(0)
    model = build_judge(tokenizer, TINY)
    pixels = torch.randn(1, 3, 64, 64).expand(4, -1, -1, -1)
    loss = contrastive_loss(model, pixels, read(tokenizer, ["cat"] * 4))
    assert loss.item() == pytest.approx(torch.tensor(4.0).log().item(), rel=1e-4)


def test_what_it_is_tested_on_it_never_saw_though_it_saw_each_name(images):
    learnt, tested = split_for_judge(images, TINY)
    seen = set(zip(learnt.names, learnt.styles, strict=True))
    assert len(tested) == 2
    assert not seen & set(zip(tested.names, tested.styles, strict=True))
    assert set(tested.names) <= set(learnt.names)
    assert len(learnt) + len(tested) == len(images)


def test_the_whole_prompt_fits_its_text_tower(tokenizer):
    model = build_judge(tokenizer, TINY)
    assert model.config.text_config.max_position_embeddings == tokenizer.model_max_length
    assert model.config.text_config.eos_token_id == tokenizer.eos_token_id
