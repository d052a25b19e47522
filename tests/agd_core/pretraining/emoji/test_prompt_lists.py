"""Prompt lists: what is collected on, what is evaluated on, what was never shown; and the lists that ship."""

import re
from pathlib import Path

import pytest

import agd_core
from agd_core.pretraining.emoji.packages import PACKAGES
from agd_core.pretraining.emoji.prompt_lists import (
    COLLECT,
    COLLECTED,
    EVALUATE,
    EVALUATED,
    NEVER_SHOWN,
    prompt_lists,
    write_prompt_lists,
)
from flows.prompts import load_prompts
from tests.emoji_pictures import emoji_pictures

SHIPPED = Path(agd_core.__file__).parent / "builtin" / "captions"


def test_learnt_combinations_are_shared_out_and_the_held_out_ones_are_evaluated():
    lists = prompt_lists(emoji_pictures(), collected=4, evaluated=3)
    assert lists[NEVER_SHOWN] == ["black square, round style"]
    assert len(lists[COLLECT]) == 4
    assert len(lists[EVALUATE]) == 3
    assert lists[NEVER_SHOWN][0] in lists[EVALUATE]
    assert not set(lists[COLLECT]) & set(lists[EVALUATE])


def test_the_same_pictures_give_the_same_lists_whatever_their_order():
    pictures = emoji_pictures()
    turned = pictures.rows(list(reversed(range(len(pictures)))))
    assert prompt_lists(turned, 4, 3) == prompt_lists(pictures, 4, 3)
    assert prompt_lists(pictures)[COLLECT] != sorted(prompt_lists(pictures)[COLLECT])


def test_without_held_out_pictures_learnt_ones_are_evaluated():
    lists = prompt_lists(emoji_pictures().of("train"), 4, 3)
    assert (len(lists[NEVER_SHOWN]), len(lists[EVALUATE])) == (0, 3)


def test_files_are_lists_that_a_run_can_name(tmp_path):
    write_prompt_lists(emoji_pictures(), tmp_path)
    for name, prompts in prompt_lists(emoji_pictures()).items():
        if prompts:
            assert load_prompts(str(tmp_path / f"{name}.txt"), None, "s") == tuple(prompts)


def test_the_shipped_lists_have_what_the_page_says():
    collect, evaluate, never = (load_prompts(f"builtin:{name}", None, "s") for name in (COLLECT, EVALUATE, NEVER_SHOWN))
    assert (len(collect), len(evaluate), len(never)) == (COLLECTED, EVALUATED, 300)
    assert set(never) < set(evaluate)
    assert not set(collect) & set(evaluate)


@pytest.mark.parametrize("name", [COLLECT, EVALUATE, NEVER_SHOWN])
def test_a_shipped_list_holds_plain_captions_of_the_base_styles_in_mixed_order(name):
    styles = "|".join(package.style for package in PACKAGES if package.is_base)
    prompts = load_prompts(f"builtin:{name}", None, "s")
    assert [text for text in prompts if not re.fullmatch(rf"[a-z0-9][a-z0-9 ]*, ({styles}) style", text)] == []
    assert len({text.rpartition(", ")[2] for text in prompts[:40]}) == 6
    assert len({text.rpartition(", ")[0] for text in prompts[:40]}) >= 35
    assert (SHIPPED / f"{name}.txt").read_text(encoding="utf-8").startswith("# ")
