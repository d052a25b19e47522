"""Every class of models against the stock pipelines, on random-weight miniatures of the real classes."""

import json
import shutil
from dataclasses import replace

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from agd_core.basics.errors import InputError
from agd_core.basics.seeding import generator, stacked_noise
from agd_core.builtin.miniatures import MINIATURES, miniature_folder
from agd_core.data.subjects import Subjects
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.models.config import BaseModelConfig
from agd_core.models.denoising import denoise
from agd_core.models.schedulers import build_scheduler

CPU = torch.device("cpu")
PROMPTS = ("a red bus on a wet street", "two dogs asleep", "a bowl of soup", "an old harbour at night")
SEEDS, STEPS = (3, 4), 5
SAMPLERS = {
    "tiny-sd": ("ddim", "euler", "dpm-solver++"),
    "tiny-sd-v": ("ddim", "euler", "dpm-solver++"),
    "tiny-sdxl": ("ddim", "euler", "dpm-solver++"),
    "tiny-sd3": ("flow-euler",),
    "tiny-pixart": ("dpm-solver++",),
    "tiny-dit": ("ddim", "dpm-solver++"),
}


def build(name, **settings):
    return BaseModelConfig(**{"source": f"builtin:{name}", **settings}).build(CPU)


@pytest.fixture(scope="module")
def models():
    return {name: build(name) for name in MINIATURES}


def ask(model, scale=1.0, rows=2, negative_prompt=None):
    subjects = Subjects(model, () if model.class_names else PROMPTS, negative_prompt=negative_prompt)
    return subjects.ask(list(range(rows)), scale)


def stock_latents(name, sampler, steps, scale, **more):
    pipe = diffusers.DiffusionPipeline.from_pretrained(miniature_folder(name))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = build_scheduler(sampler, dict(pipe.scheduler.config), steps)
    noise = stacked_noise([generator(seed, "noise") for seed in SEEDS], build(name).latent_shape)
    settings = {"guidance_scale": scale, "num_inference_steps": steps, "output_type": "latent"} | more
    return pipe(prompt=list(PROMPTS[:2]), latents=noise, **settings).images


def ours(model, sampler, steps, scale, negative_prompt=None, **rule):
    teacher, shape = GuidedDenoiser(model, ClassifierFreeGuidance(**rule)), model.latent_shape
    scheduler = build_scheduler(sampler, model.scheduler_config, steps)
    return denoise(teacher, scheduler, ask(model, scale, negative_prompt=negative_prompt), SEEDS, shape)


@pytest.mark.parametrize(
    ("name", "sampler"), [(n, s) for n, samplers in SAMPLERS.items() if n != "tiny-dit" for s in samplers]
)
def test_the_teachers_loop_is_the_stock_pipelines(models, name, sampler):
    stock, mine = stock_latents(name, sampler, STEPS, 6.5), ours(models[name], sampler, STEPS, 6.5)
    assert (stock - mine).abs().max() <= 1e-5 * stock.abs().max().clamp(min=1)
    unguided = ours(models[name], sampler, STEPS, 1.0)
    assert (unguided - mine).abs().max() > 1e-2  # guidance does something here


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sd-v", "tiny-sdxl"])
def test_rescaling_is_the_stock_pipelines(models, name):
    stock = stock_latents(name, "ddim", STEPS, 6.5, guidance_rescale=0.7)
    mine = ours(models[name], "ddim", STEPS, 6.5, rescale=0.7)
    assert (stock - mine).abs().max() <= 1e-5 * stock.abs().max().clamp(min=1)
    assert (ours(models[name], "ddim", STEPS, 6.5) - mine).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sdxl", "tiny-sd3", "tiny-pixart"])
def test_a_negative_prompt_is_the_stock_pipelines(models, name):
    call = models[name], SAMPLERS[name][0], STEPS, 6.5
    stock = stock_latents(name, *call[1:], negative_prompt=["blurry, grey"] * 2)
    mine = ours(*call, negative_prompt="blurry, grey")
    assert (stock - mine).abs().max() <= 1e-5 * stock.abs().max().clamp(min=1)
    assert (ours(*call) - mine).abs().max() > 1e-3


def test_an_empty_negative_prompt_is_none_but_where_none_is_zeros(models):
    for name, model in models.items():
        if not model.class_names:
            none, empty = (model.null_condition(1, text)["encoder_hidden_states"] for text in (None, ""))
            assert torch.allclose(none, empty, atol=1e-6) == (name != "tiny-sdxl")


@pytest.mark.parametrize("sampler", SAMPLERS["tiny-dit"])
def test_the_teachers_loop_is_the_stock_dit_pipelines(models, sampler):
    pipe = diffusers.DiffusionPipeline.from_pretrained(miniature_folder("tiny-dit"))
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = build_scheduler(sampler, models["tiny-dit"].scheduler_config, STEPS)
    generators = [generator(seed, "noise") for seed in SEEDS]
    stock = pipe([0, 1], guidance_scale=4.0, num_inference_steps=STEPS, generator=generators, output_type="pt").images
    latents = ours(models["tiny-dit"], sampler, STEPS, 4.0)
    mine = (models["tiny-dit"].decode(latents) / 2 + 0.5).clamp(0, 1)
    assert (torch.as_tensor(stock) - mine).abs().max() < 1e-5


@pytest.mark.parametrize("name", MINIATURES)
def test_a_batch_of_four_is_four_batches_of_one(models, name):
    model = models[name]
    teacher = GuidedDenoiser(model, ClassifierFreeGuidance())
    noise = stacked_noise([generator(seed, "noise") for seed in range(4)], model.latent_shape)
    timesteps = torch.tensor([901.0, 601.0, 301.0, 1.0])
    asked = replace(ask(model, rows=4), guidance_scale=torch.tensor([1.0, 2.5, 7.5, 12.0]))
    together = teacher.predict(noise, timesteps, asked)
    for row in range(4):
        one = slice(row, row + 1)
        alone = teacher.predict(noise[one], timesteps[one], asked[one])
        assert (alone - together[one]).abs().max() < 1e-5 * together[one].abs().max().clamp(min=1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", MINIATURES)
def test_half_precision_runs_and_stays_near(models, name, dtype):
    half, whole = build(name, dtype=dtype), models[name]
    noise = stacked_noise([generator(seed, "noise") for seed in SEEDS], whole.latent_shape)
    call = noise, torch.tensor([500.0, 20.0])
    a, b = (model.predict(*call, ask(model)) for model in (half, whole))
    assert a.dtype is torch.float32
    assert (a - b).norm() / b.norm() < 0.05
    assert half.fingerprint == whole.fingerprint
    assert half.pipeline_digest() != whole.pipeline_digest()


def test_sdxl_knows_sizes_and_zero_prompts(models):
    model = models["tiny-sdxl"]
    null, asked = model.null_condition(2), ask(model).condition
    assert not null["encoder_hidden_states"].any()
    assert not null["pooled"].any()
    side = float(model.pixels)
    assert asked["time_ids"].tolist() == null["time_ids"].tolist() == [[side, side, 0, 0, side, side]] * 2


def test_a_resolution_changes_the_latents(models):
    model = build("tiny-sd", resolution=2 * models["tiny-sd"].pixels)
    assert model.latent_shape[1:] == tuple(2 * side for side in models["tiny-sd"].latent_shape[1:])
    assert model.pipeline_digest() != models["tiny-sd"].pipeline_digest()


def test_encoders_and_vae_wait_until_they_are_needed():
    model = build("tiny-sd")
    assert "_pipe" not in vars(model.encoder)
    assert "vae" not in vars(model.autoencoder)
    model.null_condition(1)
    assert "_pipe" in vars(model.encoder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "text_encoder"), "text_encoder is missing"),
        (lambda folder: shutil.rmtree(folder / "vae"), "vae is missing"),
        (lambda folder: (folder / "unet" / "config.json").unlink(), "UNet2DConditionModel"),
        (lambda folder: next((folder / "unet").glob("*.safetensors")).unlink(), "UNet2DConditionModel"),
        (lambda folder: (folder / "model_index.json").write_text("{}"), "names no pipeline class"),
        (lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(), "scheduler_config.json is missing"),
    ],
)
def test_half_a_folder_is_one_line(tmp_path, damage, message):
    folder = tmp_path / "model"
    shutil.copytree(miniature_folder("tiny-sd"), folder)
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        build("tiny-sd", source=str(folder))
    assert "\n" not in str(caught.value)


def test_a_folder_of_half_precision_files_is_read(tmp_path, models):
    pipe = diffusers.DiffusionPipeline.from_pretrained(miniature_folder("tiny-sdxl"), dtype=torch.float16)
    pipe.save_pretrained(tmp_path, variant="fp16")
    assert list((tmp_path / "unet").glob("*.fp16.safetensors"))
    model = build("tiny-sdxl", source=str(tmp_path))
    assert model.prompt_condition(PROMPTS[:1])["pooled"].isfinite().all()
    assert model.fingerprint not in ("", models["tiny-sdxl"].fingerprint)
    assert model.decode(torch.zeros(1, *model.latent_shape)).isfinite().all()


def test_an_unknown_class_of_models_is_one_line(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(
        InputError, match="is a FluxPipeline; known are DiTPipeline, StableDiffusionPipeline, "
    ) as caught:
        build("tiny-sd", source=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_of_an_earlier_diffusers_has_another_name_for_its_network(tmp_path, models):
    folder = tmp_path / "model"
    shutil.copytree(miniature_folder("tiny-dit"), folder)
    for name, key in (("model_index.json", "transformer"), ("transformer/config.json", "_class_name")):
        content = json.loads((folder / name).read_text())
        legacy = ["diffusers", "Transformer2DModel"] if key == "transformer" else "Transformer2DModel"
        (folder / name).write_text(json.dumps(content | {key: legacy}))
    assert build("tiny-dit", source=str(folder)).pipeline_digest() == models["tiny-dit"].pipeline_digest()


def rewrite(path, change):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))


def move_one_weight(path):
    tensors = load_file(path)
    name = min(name for name in tensors if name.endswith("token_embedding.weight"))
    tensors[name][0] += 1
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: move_one_weight(folder / "text_encoder" / "model.safetensors"),
        lambda folder: rewrite(folder / "text_encoder" / "config.json", lambda it: it | {"hidden_act": "relu"}),
        lambda folder: rewrite(
            folder / "tokenizer" / "tokenizer.json", lambda it: it | {"truncation": None, "version": "2.0"}
        ),
    ],
)
def test_another_text_encoder_or_vocabulary_is_another_model(tmp_path, models, change):
    folder = shutil.copytree(miniature_folder("tiny-sd"), tmp_path / "model")
    same = build("tiny-sd", source=str(folder))
    assert same.pipeline_digest() == models["tiny-sd"].pipeline_digest()
    change(folder)
    other = build("tiny-sd", source=str(folder))
    assert other.fingerprint == same.fingerprint
    assert other.pipeline_digest() != same.pipeline_digest()


def test_how_a_text_encoder_was_saved_is_no_part_of_what_it_is(tmp_path, models):
    folder = shutil.copytree(miniature_folder("tiny-sd"), tmp_path / "model")
    notes = {"transformers_version": "9.9", "_name_or_path": "elsewhere", "dtype": "float16"}
    rewrite(folder / "text_encoder" / "config.json", lambda it: it | notes)
    assert build("tiny-sd", source=str(folder)).pipeline_digest() == models["tiny-sd"].pipeline_digest()


def test_a_schedule_without_end_has_a_digest(tmp_path, models):
    """What diffusers writes of DPM-Solver, by which PixArt and many a fine-tune are published."""
    folder = tmp_path / "model"
    shutil.copytree(miniature_folder("tiny-sd"), folder)
    scheduler = diffusers.DPMSolverMultistepScheduler.from_config(models["tiny-sd"].scheduler_config)
    scheduler.save_pretrained(folder / "scheduler")
    model = build("tiny-sd", source=str(folder))
    assert model.scheduler_config["lambda_min_clipped"] == -float("inf")
    assert model.pipeline_digest() != models["tiny-sd"].pipeline_digest()


def test_a_setting_that_does_not_fit_the_model_is_one_line():
    with pytest.raises(InputError, match=r"base_model\.resolution: a DiTTransformer2DModel has one size, 64; drop it"):
        build("tiny-dit", resolution=128)
    with pytest.raises(InputError, match="learned_variance=keep: builtin:tiny-sd predicts 4 channels"):
        build("tiny-sd", learned_variance="keep")


def test_an_inpainting_network_is_refused_with_a_way_out(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(miniature_folder("tiny-sd"), folder)
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    wider = diffusers.UNet2DConditionModel.from_config({**unet.config, "in_channels": 9})
    wider.save_pretrained(folder / "unet")
    with pytest.raises(InputError, match="takes 9 channels and predicts 4"):
        build("tiny-sd", source=str(folder))


def test_a_kept_variance_doubles_the_prediction(models):
    kept, dropped = build("tiny-dit", learned_variance="keep"), models["tiny-dit"]
    channels = dropped.latent_shape[0]
    call = torch.randn(2, *dropped.latent_shape), torch.tensor([500.0, 20.0]), ask(dropped)
    assert kept.predict(*call).shape[1] == 2 * channels
    assert torch.equal(kept.predict(*call)[:, :channels], dropped.predict(*call))
    assert (kept.scheduler_config["variance_type"], dropped.scheduler_config["variance_type"]) == (
        "learned_range",
        "fixed_small",
    )
    assert kept.network_digest() != dropped.network_digest()


def test_a_model_without_learned_variance_cannot_keep_it():
    with pytest.raises(InputError, match="learned_variance=keep: builtin:fashion-dit predicts 4 channels"):
        build("tiny-dit", source="builtin:fashion-dit", learned_variance="keep")


def test_prompts_belong_to_models_that_take_them(models):
    with pytest.raises(InputError, match=r"collect\.prompts: this base model takes classes"):
        Subjects.of(models["tiny-dit"], PROMPTS, "collect.prompts")
    with pytest.raises(InputError, match=r"sample\.prompts: this base model takes prompts"):
        Subjects.of(models["tiny-sd"], (), "sample.prompts")
    with pytest.raises(InputError, match=r"collect\.negative_prompt: this base model takes classes"):
        Subjects.of(models["tiny-dit"], (), "collect.prompts", negative_prompt="blurry")


def test_the_kind_of_prediction_is_read_from_the_folder(models):
    assert {name: model.prediction_type for name, model in models.items()} == {
        "tiny-dit": "epsilon",
        "tiny-pixart": "epsilon",
        "tiny-sd": "epsilon",
        "tiny-sd-v": "v_prediction",
        "tiny-sdxl": "epsilon",
        "tiny-sd3": "flow",
    }
    assert json.loads((miniature_folder("tiny-sd-v") / "scheduler" / "scheduler_config.json").read_text())
