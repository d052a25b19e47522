"""Names and choice: one name per concept in all styles, the best-known ones by a rule, pairs held out."""

import pytest

from agd_core.basics.errors import InputError
from agd_core.pretraining.emoji.choice import common_keys, held_out_pairs
from agd_core.pretraining.emoji.icons import Icon, IconSet
from agd_core.pretraining.emoji.names import KnownNames, named_icons, spoken, without_skin_tones


def icon_set(*keys, **aliases):
    icons = {key: Icon(body=key, left=0, top=0, width=16, height=16) for key in keys}
    return IconSet(icons, {alias.replace("_", "-"): key for alias, key in aliases.items()}, {})


def test_skin_tones_go_and_what_only_sounds_like_them_stays():
    keys = ("hand", "hand-light", "hand-medium", "hand-medium-light", "hand-dark", "ear-dark-skin-tone")
    others = ("police-car", "police-car-light", "light-bulb")
    assert without_skin_tones([*keys, *others]) == ["hand", *others]


def test_other_packages_pictures_are_called_as_the_reference_calls_them():
    known = KnownNames.of(["bear", "alarm-clock", "eggplant"], {"aubergine": "eggplant", "lost": "nothing"})
    icons = icon_set("alarmclock", "aubergine", "bear-face", "own-thing", bear="bear-face")
    assert {name: icon.body for name, icon in named_icons(icons, known).items()} == {
        "alarm-clock": "alarmclock",
        "eggplant": "aubergine",
        "bear": "bear-face",
        "own-thing": "own-thing",
    }
    assert "own-thing" not in named_icons(icons, known, is_base=False)


def test_a_key_wins_over_an_alias_and_the_first_of_a_name_counts():
    known = KnownNames.of(["cat", "cat-face"], {"catface": "cat"})
    assert known.file("catface", []) == "cat-face"
    icons = icon_set("cat", "kitten", catt="kitten")
    assert named_icons(icons, KnownNames.of(["cat"], {"kitten": "cat"}))["cat"].body == "cat"


def test_a_key_is_spoken():
    assert spoken("jack-o-lantern") == "jack o lantern"


def test_common_are_things_in_five_styles_but_no_clock_faces():
    keys = ["apple", "one-oclock", "left-arrow", "man"]
    styles = {f"s{number}": keys + ["rare"] * (number < 4) for number in range(5)}
    groups = {"apple": "Food & Drink", "rare": "Objects", "one-oclock": "Travel & Places", "man": "People & Body"}
    assert common_keys(styles, groups) == {"apple"}


def test_held_out_pairs_leave_every_concept_and_style_to_training():
    pairs = [(f"k{key}", f"s{style}") for key in range(40) for style in range(5)]
    held_out = held_out_pairs(pairs, 20, seed=3)
    assert len(held_out) == len({key for key, _ in held_out}) == 20
    assert held_out == held_out_pairs(pairs[::-1], 20, seed=3)
    assert held_out != held_out_pairs(pairs, 20, seed=4)
    left = set(pairs) - held_out
    assert {key for key, _ in left} == {key for key, _ in pairs}
    assert {style for _, style in left} == {style for _, style in pairs}


def test_too_few_concepts_are_refused():
    with pytest.raises(InputError, match="3 pairs cannot be held out: only 1"):
        held_out_pairs([("a", "s"), ("a", "t"), ("b", "s")], 3, seed=0)
