"""Stage emoji: from packages to Parquet, read back as pictures, as images and as prompts; resumes, repeats."""

import json
from pathlib import Path

import numpy as np
import pytest

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.pretraining.emoji.packages import PACKAGES
from flows.stages.emoji_source import SOURCES, emoji_source, read_emoji
from flows.workplace import Workplace
from storage.sources import open_images, read_prompts
from tests.emoji_packages import THINGS, write_packages

HELD_OUT = 3
BASE = [package.style for package in PACKAGES if package.is_base]


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    extra = {"flag": {"body": "<g/>"}, "hand": {"body": "<g/>"}, "hand-dark-skin-tone": {"body": "<g/>"}}
    return write_packages(tmp_path_factory.mktemp("packages") / "all", extra)


@pytest.fixture(scope="module")
def source(packages, tmp_path_factory):
    return emoji_source(packages, Workplace(tmp_path_factory.mktemp("output")), held_out=HELD_OUT)


def bytes_of(artefact):
    return {path.name: path.read_bytes() for path in artefact.path.glob("*.parquet")}


def test_every_style_has_its_names_and_pictures(source):
    images = read_emoji(source.path)
    assert len(images) == len(PACKAGES) * len(THINGS) + 2
    assert images.pixels.shape[1:] == (64, 64, 3)
    noto = {name for name, style in zip(images.names, images.styles, strict=True) if style == "noto"}
    assert noto == {"red apple", "green pear", "cat with hat", "bell", "castle", "flag", "hand"}
    assert len(np.unique(images.pixels.flatten(1).numpy(), axis=0)) == len(PACKAGES) * len(THINGS) + 1


def test_splits_leave_every_held_out_name_and_style_to_training(source):
    images = read_emoji(source.path)
    held_out, train, sibling = (images.of(split) for split in ("held-out", "train", "sibling"))
    assert len(held_out) == len(set(held_out.names)) == HELD_OUT
    assert set(held_out.names) <= set(train.names)
    assert set(held_out.styles) <= set(train.styles) == set(BASE)
    assert set(sibling.styles) == {"firefox", "openmoji"}
    assert set(images.of("train", common_only=True).names) == {name.replace("-", " ") for name in THINGS}
    assert {c for n, c in zip(images.names, images.categories, strict=True) if n == "red apple"} == {"Food & Drink"}


def test_it_is_a_source_like_any_other(source):
    place = str(source.path / "noto.parquet")
    assert len(open_images(place)) == len(THINGS) + 2
    assert "cat with hat, noto style" in read_prompts(place)


def test_sources_and_licences_lie_beside_it(source):
    told = json.loads((source.path / SOURCES).read_text())
    assert [(row["package"], row["licence"]) for row in told] == [
        (f"@iconify-json/{package.name}", package.licence) for package in PACKAGES
    ]


def test_stopped_and_resumed_it_goes_on_with_the_style_and_gives_the_same_bytes(packages, source, tmp_path):
    for finished in (0, 2, 3):  # a poll per style that is left
        answers = iter([False] * finished + [True])
        with pytest.raises(Stopped, match="run the same command again"):
            emoji_source(packages, Workplace(tmp_path, should_stop=lambda a=answers: next(a)), held_out=HELD_OUT)
    drawn = []
    artefact = emoji_source(packages, Workplace(tmp_path, announce=drawn.append), held_out=HELD_OUT)
    assert len(drawn) == len(PACKAGES) - 5
    assert artefact.digest == source.digest
    assert bytes_of(artefact) == bytes_of(source)


def test_another_drawing_is_another_artefact_and_the_same_is_reused(packages, source, tmp_path):
    said = []
    again = emoji_source(packages, Workplace(source.path.parents[1], announce=said.append), held_out=HELD_OUT)
    assert again.path == source.path
    assert said == [f"emoji: cached, {source.path}"]
    other = write_packages(tmp_path / "other", {"sun": {"body": "<g/>"}})
    assert emoji_source(other, Workplace(tmp_path / "out"), held_out=HELD_OUT).key != source.key


def test_a_hostile_drawing_ends_it_in_one_line(tmp_path):
    packages = write_packages(tmp_path / "p", {"spy": {"body": '<image href="/etc/passwd"/>'}})
    with pytest.raises(InputError, match=r"noto: spy has an element .*image"):
        emoji_source(packages, Workplace(tmp_path / "out"), held_out=HELD_OUT)


def test_without_packages_and_npm_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(Path(tmp_path)))
    with pytest.raises(InputError, match="npm is not installed"):
        emoji_source(None, Workplace(tmp_path / "out"))
