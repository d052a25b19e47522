"""Prompts beyond what the text encoders read: counted once, and never printed text by text."""

import pytest
import torch

from agd_core.builtin.miniatures import miniature_folder
from agd_core.models.prompt_length import CutPrompts, cut_prompts
from flows.presets import load_config
from flows.run import Run
from flows.workplace import Workplace

LONG = "a red bus " * 60
PROMPTS = ("a cat", LONG, LONG + "at night", "a dog")


@pytest.mark.parametrize("preset", ["tiny-sd", "tiny-sdxl"])
def test_prompts_that_are_cut_and_that_become_equal_are_counted(preset):
    assert cut_prompts(miniature_folder(preset), PROMPTS) == CutPrompts(cut=2, equal=1, most_tokens=77)
    assert cut_prompts(miniature_folder(preset), ("a cat", "a dog")) is None


def test_what_a_longer_encoder_still_reads_is_not_equal():
    medium = "a red bus " * 14  # more than CLIP reads, less than T5 does
    found = cut_prompts(miniature_folder("tiny-sd3"), (medium, medium + "at night"))
    assert found == CutPrompts(cut=2, equal=0, most_tokens=77)


def test_it_is_said_once_and_the_encoders_say_nothing(tmp_path, capfd):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    overrides = [f"collect.prompts={tmp_path / 'prompts.txt'}", "collect.prompt_count=4"]
    said: list[str] = []
    place = Workplace(tmp_path / "out", torch.device("cpu"), said.append)
    base_model = Run(load_config("tiny-sd", overrides), place).check().model
    base_model.prompt_condition(PROMPTS)
    assert [line for line in said if "cut" in line] == [
        "collect.prompts: 2 of 4 prompts are cut, for a text encoder reads 77 tokens; 1 became equal to another one"
    ]
    assert "bus" not in "".join(capfd.readouterr())
