"""The whole chain on every family, and the adapter that it leaves in the stock pipeline."""

from dataclasses import replace

import diffusers
import pytest
import torch

import agd_core
from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.basics.seeding import generator, stacked_noise
from agd_core.builtin.miniatures import miniature_folder
from agd_core.data.subjects import Subjects
from agd_core.data.trajectory import planned_ask
from agd_core.evaluation.extractors.clip import ClipFeatures
from agd_core.methods.adapter_files import read_card
from agd_core.models.denoising import Observer, denoise
from agd_core.models.schedulers import build_scheduler
from flows.presets import load_config
from flows.prompts import load_prompts
from flows.run import Run
from flows.stages.collect import collect, collection_plan
from flows.stages.distill import distill
from flows.stages.sample import Cell, read_images, sample
from flows.stages.trajectories import open_trajectories
from flows.workplace import Workplace
from storage.artefacts import Artefact
from tests.agd_core.evaluation.extractors.tiny_clip import write_tiny_clip

SMALL = (
    "collect.trajectories=8",
    "collect.steps=4",
    "collect.kept_steps=null",
    "collect.shard_trajectories=4",
    "train.steps=4",
    "train.batch_size=4",
    "sample.images=4",
    "sample.steps=3",
    "sample.batch_size=2",
    "evaluate.curve_images=2",
)
FAMILIES = {
    "tiny-dit": (),
    "tiny-pixart": (),
    "tiny-sd": (),
    "tiny-sd-v": ("base_model.source=builtin:tiny-sd-v",),
    "tiny-sdxl": ("train.activation_checkpointing=true", "base_model.dtype=bfloat16"),
    "tiny-sd3": ("train.optimizer_memory=offloaded",),
}
WORDS = ("a red bus on a wet street", "two dogs asleep")


def config_of(name, *changes):
    return load_config(name.removesuffix("-v"), [*SMALL, *FAMILIES[name], *changes])


@pytest.fixture(scope="module", params=FAMILIES)
def made(request, tmp_path_factory):
    output = tmp_path_factory.mktemp(request.param)
    config = config_of(request.param)
    return request.param, config, output, distill(Run(config, Workplace(output)), "agd distill")


def test_every_method_is_sampled_and_counted(made):
    _, config, output, distilled = made
    rows = {row["name"]: row for row in distilled.metrics["rows"]}
    steps = config.sample.steps
    assert {name: row["nfe"] for name, row in rows.items()} == {
        "no guidance": steps,
        "CFG": 2 * steps,
        "agd-cross-attention": steps,
        "agd-offset": steps,
    }
    assert all(torch.isfinite(torch.tensor(row["paired_mse"])) for row in rows.values())
    assert rows["CFG"]["paired_mse"] == 0 < rows["agd-offset"]["paired_mse"]
    assert (output / "report.html").is_file()


def test_what_was_asked_is_in_the_store_and_in_the_protocol(made):
    name, _, output, distilled = made
    plan = open_trajectories_of(output).plan
    protocol = distilled.metrics["rows"][0]["protocol"]
    if name == "tiny-dit":
        assert plan.trajectories[3].class_label == 3
        assert plan.pair_shape[0] == 3  # input, epsilon, variance
        assert protocol["guidance"]["guided_channels"] == 3
        assert protocol["prompts"] is None
    else:
        assert plan.trajectories[3].prompt
        assert "encoder_hidden_states" in plan.conditions
        assert plan.pair_shape[0] == 2
        assert len(protocol["prompts"]) == 64


def open_trajectories_of(output):
    (folder,) = (output / "artefacts").glob("trajectories-*")
    return open_trajectories(Artefact(folder, "trajectories", ""))


def test_a_second_run_computes_nothing(made):
    _, config, output, _ = made
    said = []
    distill(Run(config, Workplace(output, announce=said.append)), "agd distill")
    assert said
    assert all("cached" in line for line in said)


def test_the_stock_pipeline_makes_one_pass_and_our_images(made):
    """The user's own call, and our own loop with the same adapter, from the same noise."""
    name, config, output, _ = made
    base_model, folder = Run(config, Workplace(output)).check().model, output / "adapters" / "agd-cross-attention"
    pipe = diffusers.DiffusionPipeline.from_pretrained(miniature_folder(name), dtype=base_model.dtype)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = build_scheduler(SAMPLERS[type(pipe.scheduler).__name__], base_model.scheduler_config, 3)
    rows = count_rows(getattr(pipe, base_model.backbone.component))
    agd_core.load_adapter(pipe, folder)
    theirs = CALLS.get(name, call_with_prompts)(pipe, base_model)
    assert rows == [2] * 3
    sampler = str(base_model.scheduler_config["_class_name"])
    with agd_core.load_student(base_model, folder) as student:
        ours = denoise(
            student,
            build_scheduler(SAMPLERS[sampler], base_model.scheduler_config, 3),
            asked(base_model),
            (1, 2),
            base_model.latent_shape,
            Observer(lambda step: None, base_model.dtype),
        )
    ours = base_model.decode(ours) / 2 + 0.5 if name in CALLS else ours
    tolerance = 1e-5 if base_model.dtype is torch.float32 else 0.05
    assert (theirs - ours).abs().max() <= tolerance * ours.abs().max()


SAMPLERS = {
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpm-solver++",
    "EulerDiscreteScheduler": "euler",
    "FlowMatchEulerDiscreteScheduler": "flow-euler",
    "PNDMScheduler": "ddim",
}


def count_rows(network):
    """The rows that go through the network, call by call; behind whatever else hangs on it."""
    rows = []
    inside = network.conv_in if hasattr(network, "conv_in") else network.pos_embed
    inside.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    return rows


def asked(base_model):
    prompts = () if base_model.class_names else WORDS
    return Subjects(base_model, prompts).ask([0, 1] if prompts else [1, 2], 4.0)


def call_with_prompts(pipe, base_model):
    noise = stacked_noise([generator(seed, "noise") for seed in (1, 2)], base_model.latent_shape)
    settings = {"guidance_scale": 4.0, "num_inference_steps": 3, "output_type": "latent"}
    return pipe(prompt=list(WORDS), latents=noise.to(base_model.dtype), **settings).images.float()


def call_with_classes(pipe, base_model):
    generators = [generator(seed, "noise") for seed in (1, 2)]
    settings = {"guidance_scale": 4.0, "num_inference_steps": 3, "output_type": "pt"}
    return torch.as_tensor(pipe([1, 2], generator=generators, **settings).images)


CALLS = {"tiny-dit": call_with_classes}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tiny-sd", "collect.prompts=null", "collect.prompts: this base model takes prompts"),
        ("tiny-sd", "sample.prompts=/no/file.txt", "sample.prompts"),
        ("tiny-sd", "sample.prompt_count=100000", "holds 1000 different prompts, 100000 are asked for"),
        ("tiny-dit", "sample.prompts=builtin:everyday-500", "sample.prompts: this base model takes classes"),
        ("tiny-sd3", "collect.scheduler=ddim", "flow-euler"),
        ("tiny-sd", "sample.scheduler=flow-euler", "flow-euler"),
        ("tiny-dit", "base_model.resolution=128", "base_model.resolution"),
        ("tiny-sd", "base_model.learned_variance=keep", "base_model.learned_variance=keep"),
        ("tiny-dit", "collect.negative_prompt=blurry", "collect.negative_prompt: this base model takes classes"),
        ("tiny-dit", "guidance.guided_channels=9", "guidance.guided_channels 9 exceeds"),
        ("tiny-sd", "base_model.resolution=100", "base_model.resolution 100"),
        (
            "tiny-sd",
            "methods=[{kind: lora, targets: [to_q, q_proj]}]",
            "UNet2DConditionModel ends in the target 'q_proj'",
        ),
    ],
)
def test_a_mistake_is_one_line_before_any_work(name, change, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        Run(config_of(name, change), Workplace(tmp_path)).check()
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


NEGATIVE = "blurry, grey"


def test_a_negative_prompt_goes_the_whole_way(tmp_path):
    config = config_of("tiny-sd", f"collect.negative_prompt={NEGATIVE}", "methods=[{kind: agd-offset}]")
    run = Run(config, Workplace(tmp_path))
    distilled = distill(run, "agd distill")
    plan, folder = open_trajectories_of(tmp_path).plan, tmp_path / "adapters" / "agd-offset"
    null = planned_ask(plan, range(8), torch.device("cpu")).null
    assert same(null, run.model.null_condition(8, NEGATIVE))
    assert not same(null, run.model.null_condition(8))
    learnt = read_card(folder)[1].guidance
    assert learnt == {"kind": "cfg", "guided_channels": None, "negative_prompt": NEGATIVE}
    assert [row["protocol"]["guidance"] for row in distilled.metrics["rows"]] == [learnt] * 3
    assert "blurry, grey" in (folder / "README.md").read_text()
    pipe = diffusers.DiffusionPipeline.from_pretrained(miniature_folder("tiny-sd"))
    pipe.set_progress_bar_config(disable=True)
    agd_core.load_adapter(pipe, folder)
    call = {"num_inference_steps": 2, "output_type": "latent", "guidance_scale": 4.0}
    call["latents"] = torch.zeros(1, *run.model.latent_shape)
    assert torch.equal(pipe("a cat", negative_prompt=NEGATIVE, **call).images, pipe("a cat", **call).images)
    with pytest.raises(InputError, match=f"has learnt negative_prompt='{NEGATIVE}': give that or drop it"):
        pipe("a cat", negative_prompt="ugly", **call)


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.tensors().items())


def test_another_negative_prompt_is_another_collection_and_leaves_the_unguided_images(tmp_path):
    base_model = Run(config_of("tiny-sd"), Workplace(tmp_path)).check().model

    def run(*changes):
        return Run(config_of("tiny-sd", *changes), Workplace(tmp_path), base_model)

    none, one, other = run(), run(f"collect.negative_prompt={NEGATIVE}"), run("collect.negative_prompt=ugly")
    assert len({collection_plan(each).dataset_id for each in (none, one, other)}) == 3
    assert "negative_prompt" not in str(collection_plan(none).identity)
    bare = Cell(4.0, 3, "ddim")
    assert sample(none, bare, "bare").path == sample(one, bare, "bare").path
    guided = [sample(each, replace(bare, guidance=each.config.guidance), "CFG") for each in (none, one)]
    assert guided[0].path != guided[1].path
    assert not torch.equal(*map(read_images, guided))


def test_other_prompts_are_other_trajectories_and_the_same_prompts_elsewhere_are_not(tmp_path):
    listed = tmp_path / "prompts.txt"
    listed.write_text("\n".join(WORDS), encoding="utf-8")
    base_model = Run(config_of("tiny-sd"), Workplace(tmp_path)).check().model

    def plan(*changes):
        return collection_plan(Run(config_of("tiny-sd", *changes), Workplace(tmp_path), base_model))

    given = plan(f"collect.prompts={listed}", "collect.prompt_count=null")
    moved = listed.rename(tmp_path / "moved.txt")
    assert plan(f"collect.prompts={moved}", "collect.prompt_count=2").dataset_id == given.dataset_id
    assert plan().dataset_id != given.dataset_id
    assert [row.prompt for row in given.trajectories[:3]] == [WORDS[0], WORDS[1], WORDS[0]]


def test_a_collection_keeps_the_prompts_that_it_began_with(tmp_path, monkeypatch):
    """Another device encodes a prompt to other last bits; a stopped collection goes on all the same, and grows."""
    config, stop = config_of("tiny-sd", "collect.trajectories=8"), iter([False] * 5)
    base_model = Run(config, Workplace(tmp_path)).check().model
    with pytest.raises(Stopped):
        collect(Run(config, Workplace(tmp_path, should_stop=lambda: next(stop, True)), base_model))
    begun = open_trajectories_of(tmp_path).plan.conditions["encoder_hidden_states"]

    encode = type(base_model.encoder).encode

    def elsewhere(self, prompts):
        return [{name: tensor + 1e-4 for name, tensor in part.items()} for part in encode(self, prompts)]

    monkeypatch.setattr(type(base_model.encoder), "encode", elsewhere)
    finished = open_trajectories(collect(Run(config, Workplace(tmp_path), base_model)))
    assert (finished.plan.conditions["encoder_hidden_states"] == begun).all()
    longer = open_trajectories(
        collect(Run(config_of("tiny-sd", "collect.trajectories=12"), Workplace(tmp_path), base_model))
    )
    assert longer.plan.unit_ids[:2] == finished.plan.unit_ids


def test_the_clip_score_is_that_of_the_prompts(tmp_path, monkeypatch):
    """Random weights; what counts is which texts the images are compared with."""
    asked, clip = [], write_tiny_clip(tmp_path / "clip")
    embed = ClipFeatures.embed
    monkeypatch.setattr(ClipFeatures, "embed", lambda self, texts: asked.append(tuple(texts)) or embed(self, texts))
    changes = ("evaluate.extractor=clip", f"evaluate.extractor_weights={clip}", "evaluate.metrics=[agreement]")
    config = config_of("tiny-sd", *changes, "sample.prompt_count=3")
    rows = distill(Run(config, Workplace(tmp_path)), "agd distill").metrics["rows"]
    assert all(-100 <= row["scores"]["clip_score"]["value"] <= 100 for row in rows)
    assert set(asked) == {load_prompts("builtin:everyday-1000", 3, "sample.prompts")}
