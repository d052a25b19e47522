"""The prompts that a setting names, and the lists that are shipped."""

import re
import shutil
from pathlib import Path

import pytest

import agd_core
from agd_core.basics.errors import InputError
from flows.prompts import load_prompts

SHIPPED = Path(agd_core.__file__).parent / "builtin" / "captions"
COLLECT, EVALUATE = "builtin:everyday-500", "builtin:everyday-1000"


def file(path, *lines):
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_the_shipped_lists_have_what_their_names_say():
    assert [len(load_prompts(place, None, "s")) for place in (COLLECT, EVALUATE)] == [500, 1000]


def test_the_shipped_lists_share_nothing():
    collect, evaluate = ({text.lower() for text in load_prompts(place, None, "s")} for place in (COLLECT, EVALUATE))
    assert (len(collect), len(evaluate)) == (500, 1000)
    assert collect.isdisjoint(evaluate)


@pytest.mark.parametrize("place", [COLLECT, EVALUATE])
def test_shipped_captions_are_plain_english_of_8_to_14_words(place):
    for text in load_prompts(place, None, "s"):
        assert 8 <= len(text.split()) <= 14, text
        assert re.fullmatch(r"[A-Z][A-Za-z', ]+[a-z]", text), text
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]|\b(\w+) \1\b|  ", text), text


@pytest.mark.parametrize("name", ["everyday-500", "everyday-1000"])
def test_a_shipped_list_says_whose_it_is(name):
    first = (SHIPPED / f"{name}.txt").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    assert "composed for this project" in first
    assert "not COCO's" in first


def test_the_beginning_of_a_shipped_list_is_varied():
    """A short run takes the first few."""
    for place in (COLLECT, EVALUATE):
        first = load_prompts(place, 40, "s")
        assert len({" ".join(text.split()[:3]) for text in first}) >= 35


def test_files_are_read_and_the_first_are_taken(tmp_path):
    place = file(tmp_path / "a.txt", "# mine", "b", "a", "b", "c")
    assert load_prompts(place, None, "collect.prompts") == ("b", "a", "c")
    assert load_prompts(place, 3, "collect.prompts") == ("b", "a", "c")
    assert load_prompts(place, 2, "collect.prompts") == ("b", "a")


@pytest.mark.parametrize(
    ("place", "count", "message"),
    [
        ("{}/a.txt", 4, "collect.prompts: {}/a.txt holds 2 different prompts, 4 are asked for"),
        ("{}/a.txt", 0, "collect.prompts: 0 prompts are asked for; allowed are 1 or more"),
        (COLLECT, 501, "collect.prompts: builtin:everyday-500 holds 500 different prompts, 501 are asked for"),
        (
            "builtin:coco",
            None,
            "collect.prompts: unknown built-in captions 'coco'; known: emoji-collect, emoji-evaluate, emoji-held-out, ",
        ),
        ("builtin:../captions/everyday-500", None, "collect.prompts: unknown built-in captions '../captions/"),
        ("{}/absent.txt", None, "collect.prompts: {}/absent.txt does not exist"),
        ("{}", None, "collect.prompts: {} does not exist"),
        ("{}/long.txt", None, "collect.prompts: {}/long.txt, line 2 has 10001 characters"),
    ],
)
def test_what_cannot_be_used_is_bad_input_under_the_settings_name(place, count, message, tmp_path):
    file(tmp_path / "a.txt", "a", "b", "a")
    file(tmp_path / "long.txt", "a", "x" * 10_001)
    if place == "{}":
        shutil.rmtree(tmp_path)
    with pytest.raises(InputError) as problem:
        load_prompts(place.replace("{}", str(tmp_path)), count, "collect.prompts")
    assert str(problem.value).startswith(message.replace("{}", str(tmp_path)))
    assert "\n" not in str(problem.value)
