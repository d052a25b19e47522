"""The text-to-image world from one end to the other, on a toy: trained, distilled by its preset, judged by name."""

import json

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

import agd_core
from agd_core.builtin import shipped
from flows.presets import load_config
from flows.run import Run
from flows.stages.distill import distill
from flows.stages.pretrain_emoji import train_emoji
from flows.stages.pretrain_emoji_judge import train_judge
from flows.workplace import Workplace
from tests.emoji_pictures import emoji_pictures, tiny_judge_recipe, tiny_recipe

SMALL = (
    "collect.prompt_count=4",
    "collect.trajectories=4",
    "collect.steps=3",
    "methods.0.hidden_width=8",
    "methods.0.rank=2",
    "train.steps=3",
    "train.batch_size=4",
    "sample.prompt_count=null",
    "sample.images=8",
    "sample.steps=2",
    "evaluate.distance_subsets=5",
    "evaluate.curve_images=2",
)


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    """A toy base and its judge in place of those that ship, and the lists of prompts that its training wrote."""
    folder = tmp_path_factory.mktemp("emoji")
    train_emoji(emoji_pictures(), "squares", Workplace(folder), tiny_recipe())
    train_judge(emoji_pictures(), "squares", Workplace(folder), tiny_judge_recipe(steps=3, batch_size=4, held_out=3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shipped, "BUILTIN_FOLDER", folder)
        yield folder


@pytest.fixture(scope="module")
def distilled(installation, tmp_path_factory):
    captions, output = installation / "captions", tmp_path_factory.mktemp("distilled")
    lists = (f"{stage}.prompts={captions}/emoji-{stage_list}.txt" for stage, stage_list in LISTS.items())
    config = load_config("emoji-sd-quick", [*SMALL, *lists])
    return output, distill(Run(config, Workplace(output)), "agd distill emoji-sd-quick").metrics


LISTS = {"collect": "collect", "sample": "evaluate"}


def test_its_preset_measures_names_alignment_and_distance_with_what_ships(distilled):
    _, metrics = distilled
    assert [row["method"] for row in metrics["rows"]] == ["none", "cfg", "gated-lora"]
    for row in metrics["rows"]:
        assert {"fd", "clip_score", "name_top1", "name_top5", "style_top1", "paired_mse"} <= set(row["scores"])
        assert row["protocol"]["extractor"] == row["protocol"]["judge"] == "emoji-judge"
        assert row["protocol"]["distance"] == "FD-emoji"
        assert row["protocol"]["base_model"] == "builtin:emoji-sd"


def test_its_report_has_the_prompts(distilled):
    output, _ = distilled
    page = (output / "report.html").read_text()
    assert page.count('title="black square, round style"') >= 3
    assert "name top-1" in page


def test_its_report_and_its_numbers_begin_with_the_judges_own_accuracy(installation, distilled):
    output, metrics = distilled
    accuracy = json.loads((installation / "emoji-judge" / "accuracy.json").read_text())
    said = f"on {accuracy['images']} real pictures that it never saw, names {accuracy['name_top1']['value']:.1%}"
    said = said.replace("%", " %")
    assert said in metrics["notes"][0]
    assert said in (output / "report.html").read_text()


def test_its_adapter_guides_stock_pipelines_in_one_pass(installation, distilled):
    folder = agd_core.builtin_folder("emoji-sd")
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    agd_core.load_adapter(pipe, distilled[0] / "adapters" / "gated-lora")
    rows = []
    pipe.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    call = {"guidance_scale": 3.0, "num_inference_steps": 2, "output_type": "np"}
    image = pipe("red square, flat style", generator=torch.Generator().manual_seed(0), **call).images
    assert image.shape == (1, 64, 64, 3)
    again = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    assert again("red square, flat style", image=image, strength=1.0, **call).images.shape == (1, 64, 64, 3)
    assert set(rows) == {1}
