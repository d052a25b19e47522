"""The emoji judge: places of names and styles against a count by hand, prompts taken apart, folders that do not fit."""

import json

import pytest
import torch
from torch.nn.functional import cosine_similarity

from agd_core.basics.errors import InputError
from agd_core.builtin import shipped
from agd_core.evaluation.extractors import Extracted, open_extractor
from agd_core.evaluation.extractors.clip import ClipFeatures
from agd_core.evaluation.extractors.emoji_judge import Asked, EmojiJudge, Words, taken_apart
from tests.agd_core.evaluation.extractors.tiny_judge import NAMES, STYLES, WORDS, write_tiny_judge


@pytest.fixture(scope="module")
def judge(tmp_path_factory, cpu):
    return EmojiJudge(write_tiny_judge(tmp_path_factory.mktemp("judge")), cpu)


def by_hand(judge, feature, candidates, right):
    """How many candidates are at least as near as the right one."""
    cosines = cosine_similarity(feature[None], judge.clip.embed(candidates), dim=1)
    return int((cosines >= cosines[candidates.index(right)] - 1e-7).sum())


def test_places_are_what_a_count_gives(judge, cuttings):
    asked = [f"{NAMES[i % 3]} in {STYLES[i % 2]} style" for i in range(12)]
    extracted = judge.extract(cuttings[:12])
    ranks = judge.ranks(extracted, asked)
    for feature, text, found in zip(extracted.features, asked, ranks.tolist(), strict=True):
        name, style = text.removesuffix(" style").split(" in ")
        names = [f"{other} in {style} style" for other in NAMES]
        styles = [f"{name} in {other} style" for other in STYLES]
        assert found == [by_hand(judge, feature, names, text), by_hand(judge, feature, styles, text)]
    assert len(ranks.unique(dim=0)) > 1


def test_captions_are_read_once_and_again_for_other_names(judge, cuttings, monkeypatch):
    read, embed = [], judge.clip.embed
    monkeypatch.setattr(judge.clip, "embed", lambda texts: read.append(len(texts)) or embed(texts))
    asked = ["bear in flat style"] * 2
    ranks = [judge.ranks(judge.extract(cuttings[:2]), asked) for _ in range(2)]
    assert torch.equal(*ranks)
    assert read == [8]
    judge.ranks(judge.extract(cuttings[:1]), ["lion in noto style"])
    assert read == [8, 8]


def test_an_image_that_is_the_text_is_found_first(judge):
    asked = [f"{name} in {style} style" for name in NAMES for style in STYLES]
    assert judge.ranks(Extracted(3 * judge.clip.embed(asked), None), asked).tolist() == [[1, 1]] * len(asked)


def test_a_name_that_is_no_candidate_joins_them(judge):
    asked = ["zebra in flat style"]
    assert judge.ranks(Extracted(-judge.clip.embed(asked), None), asked).tolist() == [[4, 2]]


def test_it_says_how_often_it_is_right_itself(cpu, tmp_path):
    told = EmojiJudge(write_tiny_judge(tmp_path), cpu)
    assert told.remark() == ""
    accuracy = {"images": 1200, "name_top1": {"value": 0.294, "low": 0.2}, "style_top1": {"value": 0.5}}
    (tmp_path / "accuracy.json").write_text(json.dumps(accuracy))
    assert "on 1,200 real pictures that it never saw, names 29.4 % rightly among 3 names" in told.remark()
    assert "the style of 50.0 % among 2:" in told.remark()
    (tmp_path / "accuracy.json").write_text(json.dumps(accuracy | {"name_top1": {"value": 29.4}}))
    with pytest.raises(InputError, match=r"accuracy.json: .*name_top1"):
        told.remark()


def test_prompts_of_another_form_have_no_places(judge, cuttings):
    extracted = judge.extract(cuttings[:2])
    assert judge.ranks(extracted, ["cat in flat style", "a photo of a cat"]) is None
    assert judge.ranks(extracted, ["cat in flat style", "cat in cubist style"]) is None


def test_prompts_are_taken_apart_at_the_longest_style():
    words = Words(caption="{name}, {style} style", names=["a", "b"], styles=["d", "3 d"])
    assert taken_apart("red, big apple, 3 d style", words) == Asked("red, big apple", "3 d")
    assert taken_apart(", d style", words) is None
    other = Words(caption="{style} {name}", names=["a", "b"], styles=["flat", "flat old"])
    assert taken_apart("flat old cat", other) == Asked("cat", "flat old")


def test_score_and_features_are_its_clips(judge, cuttings, cpu):
    clip = ClipFeatures(judge.folder, cpu)
    extracted = judge.extract(cuttings[:3])
    labels, asked = torch.zeros(3, dtype=torch.long), ["cat in flat style"] * 3
    assert torch.equal(extracted.features, clip.extract(cuttings[:3]).features)
    assert torch.equal(
        judge.agreement(extracted, labels, asked).values, clip.agreement(extracted, labels, asked).values
    )
    assert judge.shipped_reference() is None


def test_other_words_are_another_judge(judge, tmp_path, cpu):
    other = EmojiJudge(write_tiny_judge(tmp_path, names=["cat", "dog"]), cpu)
    assert other.clip.sha256 == judge.clip.sha256
    assert other.identity() != judge.identity()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"caption": "{style} style"}, "caption"),
        ({"caption": "{name} {style} {other}"}, "caption"),
        ({"names": ["one"]}, "names"),
        ({"styles": [1, 2]}, "styles"),
        ({"more": 1}, "more"),
    ],
)
def test_words_that_are_none_are_refused(tmp_path, cpu, one_line, changes, said):
    assert said in one_line(EmojiJudge, write_tiny_judge(tmp_path, **changes), cpu)


def test_without_a_folder_it_is_the_shipped_one(tmp_path, cpu, one_line, monkeypatch):
    monkeypatch.setattr(shipped, "BUILTIN_FOLDER", tmp_path)
    assert "agd pretrain emoji-judge" in one_line(open_extractor, "emoji-judge", None, None, cpu)
    (tmp_path / "emoji-judge").mkdir()
    folder = write_tiny_judge(tmp_path / "emoji-judge")
    assert open_extractor("emoji-judge", None, None, cpu).folder == folder


def test_without_words_it_says_what_it_needs(tmp_path, cpu, one_line):
    (write_tiny_judge(tmp_path) / "words.json").unlink()
    assert "words.json" in one_line(EmojiJudge, tmp_path, cpu)
    assert WORDS["names"] == NAMES
