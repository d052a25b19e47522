"""Training the text-to-image world, in miniature: same code, eight squares, a few steps of narrow networks."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from agd_core.basics.progress import Stopped
from agd_core.models.config import BaseModelConfig
from flows.stages.pretrain_emoji import train_emoji
from flows.workplace import Workplace
from tests.emoji_pictures import emoji_pictures, tiny_recipe

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("emoji-vae", "emoji-examples", "emoji-denoiser")


def train(place, recipe=None, pictures=None):
    return train_emoji(pictures or emoji_pictures(), "squares", place, recipe or tiny_recipe())


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    output = tmp_path_factory.mktemp("straight")
    return output, train(Workplace(output))


def weights(output):
    paths = sorted(path for path in output.glob("emoji-sd/**/*") if path.is_file())
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in paths}


def test_it_leaves_a_stock_pipeline_that_makes_pictures(straight):
    output, result = straight
    pipeline = StableDiffusionPipeline.from_pretrained(output / "emoji-sd")
    pipeline.set_progress_bar_config(disable=True)
    for scale in (1.0, 3.0):
        asked = {"guidance_scale": scale, "num_inference_steps": 2, "output_type": "np"}
        images = pipeline(["red square, flat style"], negative_prompt=["blue"], **asked).images
        assert images.shape == (1, 64, 64, 3)
    assert json.loads((output / "pretrain.json").read_text()) == result["measured"]
    assert set(result["measured"]) == {"vae_psnr_decibels", "trained_images"}
    assert result["measured"]["trained_images"] == 7
    assert (output / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_its_files_are_half_precision_and_plain(straight):
    names = weights(straight[0])
    stored = [content for name, content in names.items() if name.endswith(".safetensors")]
    assert len(stored) == 3
    assert all(b'"F16"' in content[:4000] and b'"F32"' not in content[:4000] for content in stored)
    assert {"emoji-sd/tokenizer/vocab.json", "emoji-sd/tokenizer/merges.txt"} <= set(names)


def test_it_is_a_base_model(straight):
    model = BaseModelConfig(source=str(straight[0] / "emoji-sd")).build(torch.device("cpu"))
    assert model.prediction_type == "v_prediction"
    assert model.latent_shape == (4, 8, 8)
    assert model.decode(torch.zeros(1, 4, 8, 8)).shape == (1, 3, 64, 64)
    condition = model.prompt_condition(["red square", "blue square"])
    assert condition["encoder_hidden_states"].shape[0] == 2


def test_the_same_recipe_twice_gives_the_same_bytes(straight, tmp_path):
    train(Workplace(tmp_path))
    assert weights(tmp_path) == weights(straight[0])


def test_interrupted_anywhere_it_resumes_to_the_same_bytes(straight, tmp_path):
    for polls in ([False, True], [True], [False, False, True]):
        answers = iter(polls)
        stopped = Workplace(tmp_path, should_stop=lambda answers=answers: next(answers, False))
        with pytest.raises(Stopped):
            train(stopped)
    train(Workplace(tmp_path))
    assert weights(tmp_path) == weights(straight[0])


def test_running_again_trains_nothing(straight):
    lines = []
    train(Workplace(straight[0], announce=lines.append))
    assert [line.partition(",")[0] for line in lines] == [f"{stage}: cached" for stage in STAGES]


def test_another_seed_is_another_run(straight, tmp_path):
    recipe = tiny_recipe()
    other = recipe.model_copy(update={"denoiser": recipe.denoiser.model_copy(update={"seed": 1})})
    train(Workplace(tmp_path), other)
    changed = {name for name, content in weights(tmp_path).items() if content != weights(straight[0])[name]}
    assert changed == {
        f"emoji-sd/{part}" for part in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
    }


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import torch
from agd_core.pretraining.emoji import pipeline
from tests.flows.test_pretrain_emoji import Workplace, train

def torn(folder):
    (folder / "ATTRIBUTION.md.1.partial").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(int(sys.argv[2]))
pipeline.write_attribution = torn
train(Workplace(Path(sys.argv[1])))
"""


def test_a_kill_while_the_folder_is_written_leaves_no_part_of_it(straight, tmp_path):
    command = [sys.executable, "-c", KILLED_WHILE_WRITING, tmp_path, str(torch.get_num_threads())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "emoji-sd").exists()
    train(Workplace(tmp_path))
    assert weights(tmp_path) == weights(straight[0])
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".emoji-sd")]
