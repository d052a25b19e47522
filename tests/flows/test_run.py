"""What a run shares is opened once: prompts are read and encoded once, whatever the number of methods and points."""

import math
from functools import wraps

import diffusers
import pytest

from flows import run as module
from flows.presets import load_config
from flows.run import Run
from flows.stages.distill import distill
from flows.workplace import Workplace

ENCODED_TOGETHER = 32
SETTINGS = (
    "collect.trajectories=4",
    "collect.steps=2",
    "collect.shard_trajectories=4",
    "train.steps=2",
    "train.batch_size=2",
    "sample.images=4",
    "sample.steps=2",
    "sample.batch_size=2",
    "evaluate.curve_images=2",
)


@pytest.fixture
def asked(monkeypatch):
    """The prompts of every call of the stock pipeline's `encode_prompt`, the null one's too."""
    calls, encode = [], diffusers.StableDiffusionPipeline.encode_prompt

    @wraps(encode)
    def counting(self, *args, **settings):
        calls.append(settings["prompt"])
        return encode(self, *args, **settings)

    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "encode_prompt", counting)
    return calls


@pytest.mark.parametrize(("scales", "negative"), [([5.0], ""), ([2.0, 5.0], "blurry")])
def test_prompts_are_read_and_encoded_once_whatever_the_number_of_methods_and_scales(
    asked, monkeypatch, tmp_path, scales, negative
):
    read, load = [], module.load_prompts
    monkeypatch.setattr(module, "load_prompts", lambda *arguments: read.append(arguments) or load(*arguments))
    changes = [f"sample.guidance_scales={scales}", "sample.prompt_count=30"]
    changes += [f"collect.negative_prompt={negative}"] if negative else []
    config = load_config("tiny-sd", [*SETTINGS, *changes])
    distill(Run(config, Workplace(tmp_path)), "agd distill")
    assert [setting for *_, setting in read] == ["collect.prompts", "sample.prompts"]
    prompts = [call for call in asked if call != [negative]]
    distinct = {prompt for call in prompts for prompt in call}
    assert len(distinct) == 16 + 30
    assert len(prompts) == math.ceil(len(distinct) / ENCODED_TOGETHER)
    assert asked.count([negative]) == 1
