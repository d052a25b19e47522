"""DiT's learned variance and the guided channels: sampled with, guided, stored and learnt as the settings say."""

import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, DiTPipeline, DiTTransformer2DModel

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.errors import InputError
from agd_core.basics.seeding import generator
from agd_core.data.order import BatchOrder
from agd_core.data.records import INPUT, TARGET
from agd_core.data.states import GuidedStates
from agd_core.data.subjects import Subjects
from agd_core.data.trajectory import CollectConfig, collect_unit, plan_collection
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.methods import OffsetConfig, Trained
from agd_core.methods.trainer import TrainConfig, Training
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from agd_core.models.config import BaseModelConfig
from agd_core.models.denoiser import Denoiser
from agd_core.models.denoising import Observer, denoise
from agd_core.models.model import BaseModel
from agd_core.models.schedulers import build_scheduler, takes_learned_variance
from storage.objects import MemoryObjects
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.agd_core.methods.examples import Alone

SHAPE = (4, 5, 5)
SEEDS = [3, 11]
LEARNED = json.loads(DDPMScheduler(variance_type="learned_range", clip_sample=False).to_json_string())


class Predictor(Denoiser):
    """A smooth function of all that a network is given, row by row: four channels of epsilon, four of variance."""

    network_evaluations = 0

    def __init__(self, channels=8):
        self.channels = channels

    def predict(self, latents, timestep, ask):
        row = (timestep / 1000 + ask.condition["class_labels"]).view(-1, 1, 1, 1)
        epsilon = torch.sin(latents + row) + 0.2 * latents.flip(1)
        return torch.cat([epsilon, torch.tanh(latents.flip(2) - row)], dim=1)[:, : self.channels]


class Model(BaseModel):
    """A base model of that function; class 9 is the null class."""

    def __init__(self, channels=8, scheduler_config=LEARNED):
        self.latent_shape, self.prediction_channels = SHAPE, channels
        self.scheduler_config, self.class_names = scheduler_config, ("a", "b", "c")
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def predict(self, latents, timestep, ask):
        return Predictor(self.prediction_channels).predict(latents, timestep, ask)

    def null_condition(self, batch, negative_prompt=None):
        return Condition(class_labels=torch.full((batch,), 9))

    def class_condition(self, labels):
        return Condition(class_labels=torch.tensor(labels))

    def decode(self, latents):
        return latents


def denoised(denoiser, scheduler, see=lambda step: None):
    return denoise(denoiser, scheduler, of_classes(0, 2), SEEDS, SHAPE, Observer(see))


def of_classes(*labels):
    """At scale 2, then 4, and on; class 9 is the null class."""
    condition, null = (Condition(class_labels=torch.tensor(each)) for each in (labels, [9] * len(labels)))
    return Ask(condition, null, 2.0 * torch.arange(1, len(labels) + 1))


def first_noise(generators):
    return torch.stack([torch.randn(SHAPE, generator=each) for each in generators])


def arguments(rows=2):
    rng = torch.Generator().manual_seed(1)
    labels = torch.arange(rows) % 3
    return torch.randn(rows, *SHAPE, generator=rng), torch.full((rows,), 400.0), of_classes(*labels.tolist())


@pytest.mark.parametrize("variance_type", ["learned_range", "learned"])
def test_ddpm_samples_with_the_whole_prediction(variance_type):
    config = LEARNED | {"variance_type": variance_type}
    model = Predictor() if variance_type == "learned_range" else Positive()
    scheduler, generators = DDPMScheduler.from_config(config), [generator(seed, "noise") for seed in SEEDS]
    scheduler.set_timesteps(7)
    latents = first_noise(generators)
    for timestep in scheduler.timesteps:
        answer = model.predict(latents, timestep.float().expand(2), of_classes(0, 2))
        assert answer.shape[1] == 8
        latents = scheduler.step(answer, timestep, latents, generator=generators).prev_sample
    assert torch.equal(denoised(model, build_scheduler("ddpm", config, 7)), latents)


class Positive(Predictor):
    """Its variance is one, not a place in a range."""

    def predict(self, latents, timestep, ask):
        answer = super().predict(latents, timestep, ask)
        return torch.cat([answer[:, :4], 1e-3 * (answer[:, 4:] + 1.5)], dim=1)


def test_the_learned_range_lies_between_the_two_fixed_variances():
    """The posterior of improved DDPM (https://arxiv.org/abs/2102.09672, equation 15), written out."""
    alphas = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), dim=0).double()
    generators = [generator(seed, "noise") for seed in SEEDS]
    latents = first_noise(generators).double()
    steps = [800, 600, 400, 200, 0]
    for now, following in zip(steps, [*steps[1:], -1], strict=True):
        answer = Predictor().predict(latents.float(), torch.full((2,), float(now)), of_classes(0, 2)).double()
        epsilon, place = answer[:, :4], (answer[:, 4:] + 1) / 2
        here, there = alphas[now], alphas[following] if following >= 0 else torch.tensor(1.0).double()
        beta = 1 - here / there
        clean = (latents - (1 - here).sqrt() * epsilon) / here.sqrt()
        mean = there.sqrt() * beta / (1 - here) * clean + (here / there).sqrt() * (1 - there) / (1 - here) * latents
        if now > 0:
            smallest = (beta * (1 - there) / (1 - here)).log()
            deviation = (0.5 * (place * beta.log() + (1 - place) * smallest)).exp()
            mean = mean + deviation * first_noise(generators).double()
        latents = mean
    assert torch.allclose(denoised(Predictor(), build_scheduler("ddpm", LEARNED, 5)).double(), latents, atol=1e-4)


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++", "euler"])
def test_the_other_samplers_take_the_epsilon_alone(name):
    """Whatever `variance_type` the configuration carries along; the observer still sees the whole prediction."""
    seen = []
    scheduler = build_scheduler(name, LEARNED, 6)
    assert not takes_learned_variance(scheduler)
    with_variance = denoised(Predictor(), scheduler, see=lambda step: seen.append(step.prediction.shape))
    fixed = build_scheduler(name, LEARNED | {"variance_type": "fixed_small"}, 6)
    assert torch.equal(with_variance, denoised(Predictor(4), fixed))
    assert seen == [(2, 8, 5, 5)] * 6


def test_ddpm_with_a_fixed_variance_takes_the_epsilon_alone():
    config = LEARNED | {"variance_type": "fixed_small"}
    expected = denoised(Predictor(4), build_scheduler("ddpm", config, 6))
    assert torch.equal(denoised(Predictor(), build_scheduler("ddpm", config, 6)), expected)
    assert not torch.allclose(denoised(Predictor(), build_scheduler("ddpm", LEARNED, 6)), expected, atol=1e-3)


def test_ddpm_takes_the_variance_type_of_the_base_model():
    config = json.loads(DDIMScheduler().to_json_string())
    assert build_scheduler("ddpm", config, 5).config.variance_type == "fixed_small"
    assert build_scheduler("ddpm", config | {"variance_type": "fixed_large"}, 5).config.variance_type == "fixed_large"
    assert takes_learned_variance(build_scheduler("ddpm", LEARNED, 5))


def test_a_sampler_that_misses_its_variance_is_one_clear_line():
    with pytest.raises(InputError, match="variance_type is 'learned_range', but predictions have 4 channels") as caught:
        denoised(Predictor(4), build_scheduler("ddpm", LEARNED, 6))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("guided_channels", [None, 3, 4])
def test_guidance_leaves_the_variance_conditional(guided_channels):
    """As DiT's `forward_with_cfg` does with three of eight channels."""
    latents, timestep, ask = arguments()
    teacher = GuidedDenoiser(Model(), ClassifierFreeGuidance(guided_channels=guided_channels))
    answer = teacher.predict(latents, timestep, ask)
    conditional = Predictor().predict(latents, timestep, ask)
    unconditional = Predictor().predict(latents, timestep, of_classes(9, 9))
    guided = unconditional + ask.guidance_scale.view(-1, 1, 1, 1) * (conditional - unconditional)
    channels = guided_channels or 4
    assert torch.equal(answer, torch.cat([guided[:, :channels], conditional[:, channels:]], dim=1))
    assert not torch.allclose(guided, conditional, atol=0.1)


def collected(model, guided_channels):
    """A store of guided trajectories, and who was asked."""
    config = CollectConfig(trajectories=6, steps=5, scheduler="ddpm", dtype="float32", shard_trajectories=3)
    teacher = GuidedDenoiser(model, ClassifierFreeGuidance(guided_channels=guided_channels))
    plan = plan_collection(config, Subjects(model), {"guided_channels": guided_channels})
    store = ZarrTrajectoryStore.prepare(MemoryObjects(), plan)
    for unit in store.missing_units():
        with store.write_unit(unit) as writer:
            collect_unit(GuidedStates(teacher), model, plan, writer, config)
    return ZarrTrajectoryStore.open(store.objects), teacher


def test_three_guided_channels_and_the_variance_are_stored_and_read_back():
    store, teacher = collected(Model(), 3)
    plan = store.plan
    assert (plan.pair_shape, plan.prediction_channels) == ((3, *SHAPE), 8)
    assert plan.identity == {"guided_channels": 3}
    batch = store.read(np.arange(plan.pairs))
    latents = torch.from_numpy(batch.latents.copy())
    labels = Condition(class_labels=torch.from_numpy(plan.conditions["class_labels"][batch.rows["condition"]]))
    null = Condition(class_labels=torch.full((len(labels),), 9))
    rows = torch.from_numpy(batch.timesteps), Ask(labels, null, torch.from_numpy(batch.scalars["guidance_scale"]))
    stored = latents[:, TARGET:].flatten(1, 2)
    assert torch.allclose(stored, teacher.predict(latents[:, INPUT], *rows), atol=1e-6)
    conditional = Predictor().predict(latents[:, INPUT], *rows)
    assert torch.allclose(stored[:, 3:], conditional[:, 3:], atol=1e-6)
    assert not torch.allclose(stored[:, :3], conditional[:, :3], atol=0.1)


def test_a_dropped_variance_is_not_stored():
    store, _ = collected(Model(4, LEARNED | {"variance_type": "fixed_small"}), None)
    assert store.plan.pair_shape == (2, *SHAPE)


class Gain(Trained):
    """Answers as the model does, with one weight to learn."""

    def __init__(self):
        super().__init__(OffsetConfig())
        self.weight = torch.nn.Parameter(torch.ones(()))

    @contextmanager
    def installed(self, model, checkpointing=False):
        yield Alone(lambda *call: self.weight * model.predict(*call))


@pytest.mark.parametrize("channels", [4, 8])
def test_training_learns_every_channel_of_the_prediction(channels, tmp_path):
    variance_type = "learned_range" if channels == 8 else "fixed_small"
    model = Model(channels, LEARNED | {"variance_type": variance_type})
    store, _ = collected(model, 3)
    order = BatchOrder(store.plan.pairs, 4, seed=0)
    training = Training(model, Gain(), store, TrainConfig(steps=1, batch_size=4, seed=0))
    (loss,) = training.run(Checkpoint(tmp_path / "c.safetensors", "d"))
    batch = store.read(order.pairs(0))
    latents = torch.from_numpy(batch.latents.copy())
    labels = Condition(class_labels=torch.from_numpy(batch.rows["condition"]))
    answer = Predictor(channels).predict(latents[:, 0], torch.from_numpy(batch.timesteps), Ask.unguided(labels))
    difference = answer - latents[:, 1:].reshape(4, channels, 5, 5)
    assert loss == pytest.approx(difference.square().mean().item(), rel=1e-6)
    assert loss > 0


@pytest.fixture(scope="module")
def small_dit(tmp_path_factory):
    """A folder with facebook/DiT-XL-2-256's layout: eight output channels, a DDIM configuration. Random weights."""
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8}
    transformer = DiTTransformer2DModel(in_channels=4, out_channels=8, norm_type="ada_norm_zero", **sizes)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=16, latent_channels=4)
    folder = tmp_path_factory.mktemp("dit")
    DiTPipeline(transformer, vae, DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    return BaseModelConfig(source=str(folder), learned_variance="keep").build(torch.device("cpu"))


def test_our_loop_equals_that_of_the_original_dit(small_dit):
    """Ancestral sampling with the learned range; guidance mixes channels 0 to 2 of 8, the rest is conditional."""
    scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=False)
    scheduler.set_timesteps(5)
    generators = [generator(seed, "noise") for seed in SEEDS]
    latents = torch.stack([torch.randn((4, 8, 8), generator=each) for each in generators])
    labels, scale = torch.tensor([0, 2, 1000, 1000]), torch.tensor([2.0, 4.0]).view(2, 1, 1, 1)
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            both = latents.repeat(2, 1, 1, 1)
            output = small_dit.network(both, timestep=timestep.expand(4), class_labels=labels).sample
            conditional, unconditional = output[:2], output[2:]
            mixed = unconditional[:, :3] + scale * (conditional[:, :3] - unconditional[:, :3])
            answer = torch.cat([mixed, conditional[:, 3:]], dim=1)
            latents = scheduler.step(answer, timestep, latents, generator=generators).prev_sample
    teacher = GuidedDenoiser(small_dit, ClassifierFreeGuidance(guided_channels=3))
    ask = Ask(small_dit.class_condition([0, 2]), small_dit.null_condition(2), scale.flatten())
    found = denoise(teacher, build_scheduler("ddpm", small_dit.scheduler_config, 5), ask, SEEDS, (4, 8, 8))
    assert torch.allclose(found, latents, atol=1e-5)


def test_a_dit_that_keeps_its_variance_is_distilled(small_dit, tmp_path):
    store, _ = collected(small_dit, 3)
    assert store.plan.pair_shape == (3, 4, 8, 8)
    torch.manual_seed(0)
    adapter = OffsetConfig(hidden_width=16).build(small_dit.backbone)
    config = TrainConfig(steps=120, batch_size=15, learning_rate=1e-2)
    losses = Training(small_dit, adapter, store, config).run(Checkpoint(tmp_path / "c.safetensors", "d"))
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    with adapter.installed(small_dit) as student:
        before, scheduler = student.network_evaluations, build_scheduler("ddpm", small_dit.scheduler_config, 4)
        latents = denoise(student, scheduler, Subjects(small_dit).ask([0, 2], 2.0), SEEDS, (4, 8, 8))
        assert student.network_evaluations - before == 8
    assert torch.isfinite(latents).all()
