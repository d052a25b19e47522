"""No guidance, CFG and an adapter on the emoji world, at toy size."""

import json
import sys

import pytest
import torch

from benchmarks import emoji_adapter
from benchmarks.emoji_scores import relative_error
from benchmarks.emoji_tables import adapter_table
from tests.emoji_folders import toy_folders

TINY = ["methods.0.hidden_width=4", "methods.0.bottleneck_width=4", "train.steps=4", "train.batch_size=4"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    toy, output = toy_folders(tmp_path_factory.mktemp("toy")), tmp_path_factory.mktemp("out")
    command = ["emoji_adapter", str(toy.model), str(toy.judge), str(toy.pictures), "--images", "8", "--steps", "2"]
    options = ["--scales", "3", "1.5", "--device", "cpu", "--judge-only", "--output", str(output), "--set", *TINY]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [*command, *options])
        emoji_adapter.main()
    return output, json.loads((output / "adapter.json").read_text())


def test_every_scale_has_cfg_and_the_adapter(compared):
    rows = [(row["name"], row["scale"], row["nfe"]) for row in compared[1]["rows"]]
    adapter = "agd-modulated-mlp"
    assert rows == [
        ("no guidance", 1.0, 2.0),
        ("CFG", 3.0, 4.0),
        (adapter, 3.0, 2.0),
        ("CFG", 1.5, 4.0),
        (adapter, 1.5, 2.0),
    ]
    assert [(bar["name"], bar["scale"]) for bar in compared[1]["bars"]] == [(adapter, 3.0), (adapter, 1.5)]
    lines = adapter_table(compared[1])
    assert len(lines) == 7
    assert lines[-1].startswith(f"| {adapter} | 1.5 | 2 | ")
    assert compared[1]["adapters"][0]["parameters"] > 0
    assert (compared[0] / "adapter.png").read_bytes().startswith(b"\x89PNG")


def test_only_trained_prompts_are_collected_one_a_trajectory(compared):
    prompts = (compared[0] / "prompts.txt").read_text().split("\n")[:-1]
    assert len(prompts) == 4
    assert "black square, round style" not in prompts


def test_the_relative_error_is_a_ratio_of_means_with_an_interval():
    rng = torch.Generator().manual_seed(0)
    teacher, noise, other = torch.randn(3, 400, 2, 2, 2, generator=rng)
    found = relative_error(teacher + noise / 2, teacher, teacher + other)
    assert found["low"] < 0.25 < found["high"]
    assert found["high"] - found["low"] < 0.1
    assert relative_error(teacher, teacher, teacher + other) == {"value": 0, "low": 0, "high": 0}
