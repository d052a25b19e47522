"""The built-in text-to-image model and its relatives, as they ship: size, licences, stock pipelines, our own loop."""

import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionControlNetPipeline, StableDiffusionPipeline
from PIL import Image, ImageDraw
from torch.nn.functional import normalize

from agd_core.basics.seeding import generator, stacked_noise
from agd_core.builtin.edge_maps import edge_image, edge_maps
from agd_core.builtin.shipped import BUILTIN_FOLDER, FINE_TUNED, MODEL, names, shipped_folder
from agd_core.data.subjects import Subjects
from agd_core.evaluation.extractors.emoji_judge import EmojiJudge
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.models.config import BaseModelConfig
from agd_core.models.denoising import denoise
from agd_core.models.schedulers import build_scheduler
from agd_core.models.sources import builtin_folder
from agd_core.pretraining.emoji.attribution import ATTRIBUTION, write_attribution
from agd_core.pretraining.emoji.packages import PACKAGES

MOST_BYTES = 60_000_000
ROOT = Path(__file__).resolve().parents[3]
CPU = torch.device("cpu")
PROMPTS = ["fire engine, noto style", "pizza, twemoji style"]
THERE = [name for name in names() if (BUILTIN_FOLDER / name).is_dir()]
EMOJI = [name for name in THERE if name.startswith("emoji")]
MORE_STYLES = {"emoji-sd-style": ["firefox"], "emoji-judge": ["firefox"]}
"""What a folder learnt beside the base styles."""
CALL = {"guidance_scale": 3.0, "num_inference_steps": 4, "output_type": "np"}
WITHOUT_US = """
import sys
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from PIL import Image

pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1])
call = {"guidance_scale": 3.0, "num_inference_steps": 4}
image = pipe("fire engine, noto style", **call).images[0]
again = StableDiffusionImg2ImgPipeline.from_pipe(pipe)("fire engine, blob style", image=image, strength=0.5, **call)
mask = Image.new("L", image.size, 0)
mask.paste(255, (16, 16, 48, 48))
painted = StableDiffusionInpaintPipeline.from_pipe(pipe)("pizza, noto style", image=image, mask_image=mask, **call)
for made in (image, again.images[0], painted.images[0]):
    assert made.size == (64, 64), made.size
    assert max(high - low for low, high in made.getextrema()) > 50, made.getextrema()
assert not [name for name in sys.modules if name.partition(".")[0] in ("agd_core", "flows", "storage")]
"""


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipe, prompts=PROMPTS, **more):
    return pipe(prompts, generator=torch.Generator().manual_seed(0), **CALL | more).images


def as_bytes(images):
    return torch.from_numpy((images * 255).round().astype(np.uint8))


@pytest.fixture(scope="module")
def pipe():
    return quiet(StableDiffusionPipeline.from_pretrained(shipped_folder("emoji-sd")))


@pytest.fixture(scope="module")
def pictures():
    """A red box, a blue disc."""
    box, disc = (Image.new("RGB", (64, 64), "white") for _ in range(2))
    box.paste((220, 30, 30), (12, 20, 52, 44))
    ImageDraw.Draw(disc).ellipse((8, 8, 56, 56), fill=(40, 90, 220))
    return box, disc


def test_it_is_small():
    assert size(shipped_folder("emoji-sd")) <= MOST_BYTES


@pytest.mark.parametrize("name", EMOJI)
def test_every_folder_says_whose_drawings_it_learnt_and_none_is_share_alike(name, tmp_path):
    said = (shipped_folder(name) / ATTRIBUTION).read_text(encoding="utf-8")
    learnt = [package for package in PACKAGES if package.is_base or package.style in MORE_STYLES.get(name, [])]
    assert [package for package in PACKAGES if f"/{package.name} |" in said] == learnt
    assert all(package.may_ship for package in learnt)
    write_attribution(tmp_path, MORE_STYLES.get(name, []))
    assert said == (tmp_path / ATTRIBUTION).read_text(encoding="utf-8")


def test_the_packages_metadata_names_every_licence_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {path for pattern in project["license-files"] for path in ROOT.glob(pattern)}
    assert found == {ROOT / "LICENSE", *BUILTIN_FOLDER.glob(f"*/{ATTRIBUTION}")}
    assert project["license"] == "Apache-2.0"


def test_stock_pipelines_draw_without_our_package():
    command = [sys.executable, "-c", WITHOUT_US, str(shipped_folder("emoji-sd"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_our_loop_equals_the_stock_pipeline(pipe):
    model = BaseModelConfig(source="builtin:emoji-sd").build(CPU)
    assert (model.prediction_type, model.pixels) == ("v_prediction", 64)
    ours = denoise(
        GuidedDenoiser(model, ClassifierFreeGuidance()),
        build_scheduler("ddim", model.scheduler_config, 4),
        Subjects(model, tuple(PROMPTS)).ask([0, 1], 3.0),
        [5, 6],
        model.latent_shape,
    )
    noise = stacked_noise([generator(seed, "noise") for seed in (5, 6)], model.latent_shape)
    stock = pipe(PROMPTS, latents=noise, **CALL).images
    mine = (model.decode(ours) / 2 + 0.5).permute(0, 2, 3, 1).numpy()
    assert np.abs(mine - stock).max() < 1e-4


@pytest.mark.parametrize("name", sorted(set(names(FINE_TUNED)) & set(THERE)))
def test_siblings_are_stock_folders_that_draw_otherwise(name, pipe):
    other = quiet(StableDiffusionPipeline.from_pretrained(builtin_folder(name)))
    assert np.abs(drawn(other) - drawn(pipe)).mean() > 0.01
    assert BaseModelConfig(source=f"builtin:{name}").build(CPU).latent_shape[1:] == (16, 16)


def test_the_sibling_draws_its_own_style_better_than_the_base(pipe):
    """In sum: of single prompts the base wins some."""
    other = quiet(StableDiffusionPipeline.from_pretrained(builtin_folder("emoji-sd-style")))
    asked = [f"{name}, firefox style" for name in ("fire engine", "pizza", "cat face", "house")]
    judge, unused = EmojiJudge(None, CPU), torch.zeros(len(asked), dtype=torch.long)
    seen = (judge.extract(as_bytes(drawn(each, asked, num_inference_steps=8))) for each in (other, pipe))
    sibling, base = (judge.agreement(each, unused, asked).values.mean() for each in seen)
    assert sibling > base + 2


def test_the_lora_draws_in_blue_black_and_grey(pipe):
    other = quiet(StableDiffusionPipeline.from_pretrained(shipped_folder("emoji-sd")))
    other.load_lora_weights(builtin_folder("emoji-sd-lora"))
    inked, coloured = (drawn(each, num_inference_steps=8) for each in (other, pipe))
    saturations = [np.ptp(images, axis=-1).mean() for images in (inked, coloured)]
    assert saturations[0] < 0.1 < saturations[1]
    assert saturations[0] < saturations[1] / 3
    assert (inked[..., 2] >= inked[..., 0] - 0.02).mean() > 0.8


def test_the_controlnet_draws_more_of_the_given_edges_than_of_other_ones(pictures):
    controlnet = ControlNetModel.from_pretrained(builtin_folder("emoji-sd-controlnet"))
    other = quiet(StableDiffusionControlNetPipeline.from_pretrained(shipped_folder("emoji-sd"), controlnet=controlnet))
    asked = edge_maps(as_bytes(np.stack([np.asarray(picture) / 255 for picture in pictures])))
    told = [drawn(other, image=[edge_image(each)] * 2, num_inference_steps=8) for each in pictures]
    found = torch.stack([edge_maps(as_bytes(images)) for images in told])
    recalled = (found[:, :, None] * asked).sum(dim=(3, 4, 5)) / asked.sum(dim=(1, 2, 3))
    assert recalled.shape == (2, 2, 2), "told x prompts x pictures"
    for prompt in (0, 1):
        assert recalled[:, prompt].diagonal().min() > 0.5 > recalled[:, prompt].fliplr().diagonal().max()


def test_without_a_prompt_the_ip_adapter_draws_what_it_is_shown(pictures):
    other = quiet(StableDiffusionPipeline.from_pretrained(shipped_folder("emoji-sd")))
    other.load_ip_adapter(str(builtin_folder("emoji-sd-ip-adapter")), "models", "ip-adapter.safetensors")
    told = np.concatenate([drawn(other, [""], ip_adapter_image=each, num_inference_steps=8) for each in pictures])
    shown = np.stack([np.asarray(picture) / 255 for picture in pictures])
    errors = ((told[:, None] - shown) ** 2).mean(axis=(2, 3, 4))
    judge = EmojiJudge(None, CPU)
    seen, asked = (normalize(judge.extract(as_bytes(images)).features, dim=1) for images in (told, shown))
    assert errors.argmin(axis=1).tolist() == [0, 1]
    assert (seen @ asked.T).argmax(dim=1).tolist() == [0, 1]


def test_the_judge_ships_with_its_real_pictures():
    judge = EmojiJudge(None, CPU)
    assert judge.shipped_reference().statistics.samples > 4000
    assert {package.style for package in PACKAGES if package.may_ship} == set(judge.words.styles)


def test_the_table_of_what_ships_is_complete():
    assert names() == THERE
    assert names(MODEL) == ["fashion-dit", "emoji-sd"]


@pytest.mark.parametrize("name", EMOJI)
def test_the_page_says_how_each_is_loaded(name):
    page = (ROOT / "docs" / "emoji.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1]]
