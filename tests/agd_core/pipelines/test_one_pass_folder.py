"""A fine-tuned UNet as a stock folder: diffusers alone guides with it in one pass."""

import diffusers
import pytest
import torch

import agd_core
from agd_core.basics.errors import InputError
from agd_core.builtin.miniatures import miniature_folder
from agd_core.data.subjects import Subjects
from agd_core.methods import FinetuneConfig, LoraConfig
from agd_core.methods.adapter_files import AdapterCard, save_adapter
from agd_core.models.config import BaseModelConfig
from agd_core.models.schedulers import build_scheduler
from tests.agd_core.methods.examples import randomised
from tests.agd_core.pipelines.stock import counted_rows, quiet

CPU = torch.device("cpu")
PROMPTS = ("a red bus on a wet street", "two dogs asleep")
SCALE, STEPS = 4.0, 3


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fine_tuned(name, folder, config=FinetuneConfig()):  # noqa: B008 frozen
    """A model, and what stands for its training in a folder."""
    model = BaseModelConfig(source=f"builtin:{name}").build(CPU)
    trained = randomised(config.build(model.backbone))
    card = AdapterCard.of(model, trained, f"builtin:{name}", {"kind": "cfg"}, (1.0, 8.0), "d" * 64)
    save_adapter(trained, card, model.network, folder)
    return model, folder


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sdxl"])
def test_the_stock_pipeline_makes_one_pass_and_our_images(name, tmp_path):
    model, adapter = fine_tuned(name, tmp_path / "finetune")
    before = contents(miniature_folder(name))
    folder = agd_core.write_pipeline(adapter, f"builtin:{name}", tmp_path / "one-pass")
    assert contents(miniature_folder(name)) == before
    pipe = quiet(diffusers.DiffusionPipeline.from_pretrained(folder))
    sampler = {"tiny-sd": "ddim", "tiny-sdxl": "euler"}[name]
    pipe.scheduler = build_scheduler(sampler, model.scheduler_config, STEPS)
    noise = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    settings = {"guidance_scale": SCALE, "num_inference_steps": STEPS, "output_type": "latent"}
    with counted_rows(pipe) as rows:
        theirs = pipe(prompt=list(PROMPTS), latents=noise, **settings).images
    assert list(rows.values()) == [len(PROMPTS) * STEPS]
    ask = Subjects(model, PROMPTS).ask([0, 1], SCALE)
    scheduler = build_scheduler(sampler, model.scheduler_config, STEPS)
    with agd_core.load_student(model, adapter) as student, torch.no_grad():
        ours = sampled(student, scheduler, ask, noise)
    assert (theirs - ours).abs().max() < 1e-4 * ours.abs().max()
    other = pipe(prompt=list(PROMPTS), latents=noise, **settings | {"guidance_scale": 2.0}).images
    assert (other - theirs).abs().max() > 1e-2 * theirs.abs().max()


def sampled(student, scheduler, ask, noise):
    """The plain loop from this noise."""
    latents = noise * scheduler.init_noise_sigma
    for timestep, answer in zip(scheduler.timesteps, student.steps(scheduler.timesteps.float(), ask), strict=True):
        latents = scheduler.step(answer(scheduler.scale_model_input(latents, timestep)), timestep, latents).prev_sample
    return latents


def test_what_has_no_such_folder_is_refused_in_one_line(tmp_path):
    adapter = fine_tuned("tiny-sd", tmp_path / "finetune")[1]
    lora = fine_tuned("tiny-sd", tmp_path / "lora", LoraConfig(rank=2))[1]
    dit = fine_tuned("tiny-dit", tmp_path / "dit")[1]
    cases = [
        (lora, "tiny-sd", "out", "holds lora, no network of its own; load_adapter takes it"),
        (dit, "tiny-dit", "out", "tell a DiTTransformer2DModel no guidance scale; agd_core.load_student samples"),
        (adapter, "tiny-sd-v", "out", "was trained on base builtin:tiny-sd"),
        (adapter, "tiny-sd", "finetune", "holds something already; name a new folder"),
        (tmp_path, "tiny-sd", "out", "holds no readable adapter"),
        (adapter, "tiny-sd", "file/out", "cannot be a folder: .*file is a file"),
        (adapter, "tiny-sd", miniature_folder("tiny-sd") / "one-pass", "lies in the base model's own folder"),
        (adapter, "tiny-sd", "link/one-pass", "lies in the base model's own folder"),
    ]
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(miniature_folder("tiny-sd"))
    for given, base, target, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            agd_core.write_pipeline(given, f"builtin:{base}", tmp_path / target)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
