"""The sweep of the emoji world's base, at toy size: it samples the stock pipeline's pictures and writes whole files."""

import json
import sys

import pytest
import torch
from diffusers import StableDiffusionPipeline

from agd_core.basics.seeding import derive_seed, generator, stacked_noise
from agd_core.evaluation.sampling import to_bytes
from benchmarks import emoji_teacher
from benchmarks.emoji_sets import SEED, Sampler, asked_of, open_model, training_prompts
from benchmarks.emoji_tables import teacher_table
from tests.emoji_folders import toy_folders
from tests.emoji_pictures import emoji_pictures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return toy_folders(tmp_path_factory.mktemp("toy"))


def swept(toy, output, monkeypatch, *options):
    folders = [str(toy.model), str(toy.judge), str(toy.pictures)]
    command = ["emoji_teacher", *folders, "--images", "11", "--steps", "2", "--device", "cpu", "--judge-only"]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(output), *options])
    emoji_teacher.main()
    return json.loads((output / "teacher.json").read_text())


def test_a_fifth_is_held_out_and_styles_take_turns():
    asked = asked_of(emoji_pictures(), 20)
    assert int(asked.held_out.sum()) == 4
    assert set(asked.prompts[:4]) == {"black square, round style"}
    styles = [prompt.split(", ")[1] for prompt in asked.prompts[4:]]
    assert styles == ["flat style", "round style"] * 8
    assert "black square, round style" not in asked.prompts[4:]
    assert sorted(set(asked.prompts[4:])) == sorted(training_prompts(emoji_pictures()))
    assert asked_of(emoji_pictures(), 20).prompts == asked.prompts


def test_the_real_picture_stands_beside_its_words():
    pictures = emoji_pictures()
    asked = asked_of(pictures, 9)
    for prompt, pixels in zip(asked.prompts, asked.pixels, strict=True):
        name, style = prompt.removesuffix(" style").split(", ")
        row = list(zip(pictures.names, pictures.styles, strict=True)).index((name, style))
        assert torch.equal(pixels, pictures.pixels[row])


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_its_pictures_are_the_stock_pipelines(toy, scale):
    prompts = ["red square, flat style", "blue square, round style", "green square, flat style"]
    model = open_model(toy.model, CPU)
    samples = Sampler.of(model, prompts, 4).guided(scale)
    pipeline = StableDiffusionPipeline.from_pretrained(toy.model)
    pipeline.set_progress_bar_config(disable=True)
    noise = stacked_noise(
        [generator(derive_seed(SEED, "sample", row), "noise") for row in range(3)], model.latent_shape
    )
    call = {"guidance_scale": scale, "num_inference_steps": 4, "latents": noise}
    latents = pipeline(prompts, **call, output_type="latent").images
    torch.testing.assert_close(samples.latents, latents, rtol=1e-4, atol=1e-4)
    images = to_bytes(pipeline(prompts, **call, output_type="pt").images * 2 - 1)
    assert (samples.images.int() - images.int()).abs().max() <= 1


def test_every_scale_is_measured_by_split(toy, tmp_path, monkeypatch):
    found = swept(toy, tmp_path, monkeypatch, "--scales", "3", "1")
    assert [row["scale"] for row in found["scales"]] == [1.0, 3.0]
    assert found["judge"]["images"] == 2
    for row in (found["real"], *found["scales"]):
        assert {"all", "train", "held-out"} <= set(row)
        assert {"name_top1", "name_top5", "style_top1", "clip_score", "fd"} <= set(row["all"])
    assert found["settings"]["held_out"] == 2
    best = min(found["scales"], key=lambda row: row["all"]["fd"]["value"])
    assert found["best_scale"] == best["scale"]
    assert found["fd_over_unguided"] <= 1
    firsts = [line.split(" | ")[0] for line in teacher_table(found)[2:]]
    assert firsts == ["| judge on unseen pictures", "| real pictures", "| 1", "| 3"]
    for page in ("best.png", "scales.png"):
        assert (tmp_path / page).read_bytes().startswith(b"\x89PNG")


def test_out_of_time_it_keeps_what_it_has(toy, tmp_path, monkeypatch):
    found = swept(toy, tmp_path, monkeypatch, "--minutes", "-1000")
    assert found["scales"] == []
    assert found["judge"]["name_top1"]["value"] >= 0


def test_what_is_shown_has_a_fifth_held_out_and_styles_in_turn():
    asked = asked_of(emoji_pictures(), 30)
    shown = asked.shown(10)
    assert [bool(asked.held_out[row]) for row in shown] == [True] * 2 + [False] * 8
    assert [asked.prompts[row].split(", ")[1] for row in shown[2:]] == ["flat style", "round style"] * 4
