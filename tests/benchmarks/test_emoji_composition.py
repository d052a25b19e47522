"""The base's adapter among relatives, at toy size: a base, two siblings, a LoRA, a ControlNet and an IP-Adapter."""

import dataclasses
import json
import sys

import pytest
import torch

import agd_core
from agd_core.pretraining.emoji.controlnet import ControlNetRecipe
from agd_core.pretraining.emoji.images import SIBLING
from agd_core.pretraining.emoji.relative_recipes import LORA, LORAS, SIBLINGS, STYLE
from benchmarks import emoji_adapter, emoji_composition, emoji_compositions
from benchmarks.emoji_composition import ADAPTER, CFG, UNGUIDED, Calls
from benchmarks.emoji_compositions import BASE, CONTROLNET, IP_ADAPTER, NAMES, compose, task_of
from benchmarks.emoji_scores import relative_error
from benchmarks.emoji_tables import composition_table
from flows.stages.pretrain_emoji_controlnet import train_emoji_controlnet
from flows.stages.pretrain_emoji_ip_adapter import train_emoji_ip_adapter
from flows.stages.pretrain_emoji_lora import train_emoji_lora
from flows.stages.pretrain_emoji_sibling import train_emoji_sibling
from flows.workplace import Workplace
from tests.emoji_folders import toy_folders
from tests.emoji_pictures import emoji_pictures, tiny_ip_adapter_recipe

FEW = {"steps": 3, "batch_size": 4, "learning_rate": 1e-2, "precision": "float32"}
TOY_LORA = LORAS["cpu"].model_copy(update={**FEW, "drawn_from": "flat", "rank": 2})
TINY = ["methods.0.hidden_width=4", "methods.0.bottleneck_width=4", "train.steps=4", "train.batch_size=4"]


def pictures():
    """Red and green squares are food; the last two pictures are drawn in the siblings' style."""
    plain = emoji_pictures()
    categories = ("Food & Drink",) * 4 + ("Symbols",) * 4
    styles, splits = plain.styles[:6] + ("firefox",) * 2, plain.splits[:6] + (SIBLING,) * 2
    return dataclasses.replace(plain, categories=categories, styles=styles, splits=splits)


@pytest.fixture(scope="module", autouse=True)
def redrawn_flat():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji_compositions, "_LORA", TOY_LORA)
        yield


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_folders(tmp_path_factory.mktemp("toy"), pictures())


@pytest.fixture(scope="module")
def relatives(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("relatives")
    rest = ("these", Workplace(folder))
    for recipes in SIBLINGS.values():
        train_emoji_sibling(pictures(), *rest, recipes["cpu"].model_copy(update=FEW), toy.model)
    train_emoji_lora(pictures(), *rest, TOY_LORA, toy.model)
    train_emoji_controlnet(pictures(), *rest, ControlNetRecipe(**FEW), toy.model)
    train_emoji_ip_adapter(pictures(), *rest, tiny_ip_adapter_recipe(steps=3, learning_rate=1e-2), toy.model)
    return folder


def call(module, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, words), "--device", "cpu"])
    module.main()


@pytest.fixture(scope="module")
def adapter(toy, tmp_path_factory):
    output = tmp_path_factory.mktemp("adapter")
    with pytest.MonkeyPatch.context() as patch:
        folders = (toy.model, toy.judge, toy.pictures)
        options = ("--images", 6, "--steps", 2, "--scales", 3, "--judge-only", "--output", output, "--set", *TINY)
        call(emoji_adapter, patch, *folders, *options)
    return output / "agd-modulated-mlp"


def test_every_composition_is_measured_three_ways(toy, relatives, adapter, tmp_path, monkeypatch):
    folders = (toy.model, relatives, adapter, toy.judge, toy.pictures)
    call(emoji_composition, monkeypatch, *folders, "--images", 6, "--steps", 2, "--output", tmp_path)
    written = json.loads((tmp_path / "composition.json").read_text())
    assert [line.split(" | ")[0][2:] for line in composition_table(written)[2:]] == sorted(NAMES)
    found = written["compositions"]
    assert list(found) == sorted(NAMES)
    for numbers in found.values():
        assert set(numbers["scores"]) == {UNGUIDED, CFG, ADAPTER}
        assert {"fd", "clip_score", "name_top1", "style_top1"} <= set(numbers["scores"][CFG]["all"])
        assert (numbers["drift"]["student_nfe"], numbers["drift"]["teacher_nfe"]) == (2.0, 4.0)
        assert numbers["relative_error"]["value"] == pytest.approx(numbers["drift"]["relative"], rel=1e-3)


def test_what_is_missing_is_left_out(toy, adapter, tmp_path, monkeypatch, capsys):
    folders = (toy.model, tmp_path, adapter, toy.judge, toy.pictures)
    options = ("--images", 6, "--steps", 2, "--only", BASE, LORA, "--output", tmp_path)
    call(emoji_composition, monkeypatch, *folders, *options)
    assert f"{LORA}: left out" in capsys.readouterr().out
    assert list(json.loads((tmp_path / "composition.json").read_text())["compositions"]) == [BASE]


@pytest.mark.parametrize("name", [CONTROLNET, IP_ADAPTER])
def test_conditions_of_images_go_with_their_rows(toy, relatives, adapter, name):
    task = task_of(name, pictures(), 6)
    composition = compose(name, toy.model, relatives, task.asked.pixels, torch.device("cpu"))
    agd_core.load_adapter(composition.pipe, adapter)
    together, apart = (Calls(composition, task, 3.0, 2, size, 6) for size in (6, 4))
    for way in (UNGUIDED, CFG, ADAPTER):
        torch.testing.assert_close(together.latents(way), apart.latents(way), rtol=1e-4, atol=1e-4)


def test_siblings_and_the_lora_are_asked_for_what_they_have_learnt():
    assert set(task_of(STYLE, pictures(), 4).asked.prompts) == {"black square, firefox style"}
    ink = task_of(LORA, pictures(), 4)
    assert all(prompt.endswith(", ink style") for prompt in ink.asked.prompts)
    assert all(words.endswith(", flat style") for words in ink.words)
    assert len(ink.real) == 3


def test_a_student_that_is_the_teacher_has_no_error():
    teacher, unguided = torch.randn(2, 5, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    assert relative_error(unguided, teacher, unguided)["value"] == pytest.approx(1)
