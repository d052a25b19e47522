"""Where the teacher is asked: at noised images, the teacher's own or others, through the same plan and store."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agd_core.basics.progress import Stopped
from agd_core.basics.seeding import generator, stacked_noise
from agd_core.data.records import INPUT, TARGET
from agd_core.data.states import EncodedImages, GuidedStates, ImageChoice, NoisedStates, TeacherMade
from agd_core.data.subjects import Subjects
from agd_core.data.trajectory import CollectConfig, collect_unit, network_evaluations, plan_collection, planned_ask
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.models.config import BaseModelConfig
from agd_core.models.denoising import denoise
from agd_core.models.schedulers import build_scheduler, noise_level
from storage.objects import MemoryObjects
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import shard_key
from tests.storage.memory_store import MemoryTrajectoryStore

CONFIG = CollectConfig(
    states="noised",
    trajectories=6,
    steps=5,
    kept_steps=3,
    guidance_scale_max=5.0,
    shard_trajectories=6,
    dtype="float32",
)
PROMPTS = ("a red bus", "two dogs", "a tall tree")


@pytest.fixture(scope="module")
def guided(teacher):
    return GuidedDenoiser(teacher, ClassifierFreeGuidance())


def changed(**settings):
    return CONFIG.model_copy(update=settings)


def subjects(model):
    return Subjects(model, () if model.class_names else PROMPTS)


def planned(model, config=CONFIG):
    return plan_collection(config, subjects(model), {"a": 1})


def others(model):
    """Some latents that no teacher made, four by number; trajectory i has the image of number i % 4."""
    drawn = torch.randn(4, *model.latent_shape, generator=torch.Generator().manual_seed(7))
    count = len(subjects(model))
    by_subject = tuple(np.array([0, 1, 2, 3]) for _ in range(count))
    return EncodedImages(ImageChoice(by_subject, 0), lambda: dict(enumerate(drawn))), drawn


def stored(states, model, config=CONFIG):
    """`[trajectories, kept, slots, C, H, W]`."""
    store = MemoryTrajectoryStore(planned(model, config))
    for unit in store.missing_units():
        with store.write_unit(unit) as writer:
            collect_unit(states, model, store.plan, writer, config)
    plan = store.plan
    return store.read(np.arange(plan.pairs)).latents.reshape(-1, plan.stored_steps, *plan.pair_shape)


def forward(clean, seed, step, timestep, model):
    """q(x_t | x_0) in closed form, as the network takes it."""
    noise = stacked_noise([generator(seed, "noised", step)], model.latent_shape)
    sigma = noise_level(model.scheduler_config, torch.tensor([timestep]))
    whole = 1 + sigma if model.prediction_type == "flow" else (1 + sigma**2).sqrt()
    return (clean + sigma * noise) / whole if sigma.isfinite() else noise


def predicted(guided, model, plan, row, latents, timestep):
    ask = planned_ask(plan, [row], torch.device("cpu"))
    return guided.predict(latents, torch.tensor([timestep]), ask)


CASES = [
    ("fashion-dit", "ddim"), ("fashion-dit", "ddpm"), ("fashion-dit", "dpm-solver++"), ("fashion-dit", "euler"),
    ("tiny-dit", "ddim"), ("tiny-sd", "ddim"), ("tiny-sd", "dpm-solver++"), ("tiny-sdxl", "euler"),
    ("tiny-sd3", "flow-euler"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "scheduler"), CASES)
def test_what_is_stored_is_a_noised_image_and_the_guided_answer_there(source, scheduler):
    model = BaseModelConfig(source=f"builtin:{source}").build(torch.device("cpu"))
    guided, config = GuidedDenoiser(model, ClassifierFreeGuidance()), changed(scheduler=scheduler)
    images, latents = others(model)
    plan, pairs = planned(model, config), torch.from_numpy(stored(NoisedStates(guided, images), model, config))
    for row, trajectory in enumerate(plan.trajectories):
        clean = latents[images.choice.image(row)]
        for slot, step in enumerate(trajectory.steps):
            timestep = plan.timesteps[step]
            expected = forward(clean, trajectory.seed, step, timestep, model)
            assert torch.allclose(pairs[row, slot, INPUT], expected[0], atol=1e-4)
            answer = predicted(guided, model, plan, row, pairs[row, slot, INPUT][None], timestep)
            found = pairs[row, slot, TARGET:].flatten(0, 1)
            assert torch.allclose(found, answer[0], atol=1e-4 * max(1.0, float(answer.abs().max())))


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "euler"])
def test_the_teachers_own_images_are_what_guided_sampling_ends_with(teacher, guided, scheduler):
    config = changed(scheduler=scheduler)
    plan, pairs = planned(teacher, config), stored(NoisedStates(guided, TeacherMade(guided)), teacher, config)
    clean = denoise(
        guided,
        build_scheduler(scheduler, teacher.scheduler_config, config.steps),
        planned_ask(plan, range(6), torch.device("cpu")),
        [trajectory.seed for trajectory in plan.trajectories],
        teacher.latent_shape,
    )
    for row, trajectory in enumerate(plan.trajectories):
        for slot, step in enumerate(trajectory.steps):
            expected = forward(clean[row], trajectory.seed, step, plan.timesteps[step], teacher)
            assert torch.allclose(torch.from_numpy(pairs[row, slot, INPUT]), expected[0], atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_network_is_handed_what_is_stored(teacher, guided, dtype):
    config, images = changed(dtype=dtype), others(teacher)[0]
    plan, pairs = planned(teacher, config), stored(NoisedStates(guided, images), teacher, config)
    latents = torch.from_numpy(pairs).view(getattr(torch, dtype)).float()
    for slot, step in enumerate(plan.trajectories[0].steps):
        answer = predicted(guided, teacher, plan, 0, latents[0, slot, INPUT][None], plan.timesteps[step])
        assert torch.allclose(answer[0], latents[0, slot, TARGET], atol={"float16": 2e-3, "bfloat16": 2e-2}[dtype])


def test_the_plan_is_that_of_guided_states(teacher):
    assert planned(teacher).trajectories == planned(teacher, changed(states="guided")).trajectories


@pytest.mark.parametrize("clean", ["teacher-made", "others"])
def test_a_trajectory_does_not_depend_on_its_batch(teacher, guided, clean):
    states = NoisedStates(guided, TeacherMade(guided) if clean == "teacher-made" else others(teacher)[0])
    together, alone = (stored(states, teacher, changed(batch_size=size)) for size in (64, 2))
    np.testing.assert_allclose(together, alone, atol=2e-5 * max(1.0, np.abs(together).max()))


@pytest.mark.parametrize("clean", ["teacher-made", "others"])
@pytest.mark.parametrize("lost", [0, 4])
def test_a_unit_that_is_finished_later_equals_an_unbroken_one_to_the_bit(teacher, guided, clean, lost):
    states = NoisedStates(guided, TeacherMade(guided) if clean == "teacher-made" else others(teacher)[0])
    config = changed(shard_trajectories=1, unit_trajectories=6, batch_size=4)
    store = ZarrTrajectoryStore.prepare(MemoryObjects(), planned(teacher, config))
    digests = []
    for _ in range(2):
        with store.write_unit(0) as writer:
            collect_unit(states, teacher, store.plan, writer, config)
        digests.append(store.content_digest())
        for key in ("index/u-000000.parquet", shard_key(lost)):
            store.objects.delete(key)
    assert digests[0] == digests[1]


@pytest.mark.parametrize("polls", [1, 4, 6])
def test_a_unit_can_be_stopped_between_two_steps(teacher, guided, polls):
    """The first five steps make the images, the others ask at the noised ones."""
    store, answers = MemoryTrajectoryStore(planned(teacher)), iter([False] * polls + [True])
    with pytest.raises(Stopped, match="within a unit"), store.write_unit(0) as writer:
        states = NoisedStates(guided, TeacherMade(guided))
        collect_unit(states, teacher, store.plan, writer, CONFIG, lambda: next(answers))
    assert store.missing_units() == [0]


def test_network_evaluations_are_counted_before_they_are_made(teacher, guided):
    for states, expected in (
        (GuidedStates(guided), 6 * 5 * 2),
        (NoisedStates(guided, others(teacher)[0]), 6 * 3 * 2),
        (NoisedStates(guided, TeacherMade(guided)), 6 * 5 * 2 + 6 * 3 * 2),
    ):
        before = guided.network_evaluations
        stored(states, teacher)
        assert guided.network_evaluations - before == expected
        assert network_evaluations(CONFIG, states, [2] * 5) == expected
    steps = [0, 0, 0, 0, 7]
    last = sum(4 in trajectory.steps for trajectory in planned(teacher).trajectories)
    assert network_evaluations(CONFIG, NoisedStates(guided, others(teacher)[0]), steps) == 7 * last > 0


def test_every_image_of_a_subject_comes_once_before_any_comes_again():
    choice = ImageChoice((np.array([5, 7, 9]), np.array([2])), seed=3)
    rounds = [[choice.image(2 * turn) for turn in range(3 * epoch, 3 * epoch + 3)] for epoch in range(6)]
    assert all(sorted(each) == [5, 7, 9] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert {choice.image(2 * turn + 1) for turn in range(9)} == {2}
    other = ImageChoice(choice.by_subject, seed=4)
    assert [other.image(2 * turn) for turn in range(18)] != [image for each in rounds for image in each]


def test_the_latents_are_asked_for_once(teacher, guided):
    calls, (images, latents) = [], others(teacher)
    counted = EncodedImages(images.choice, lambda: calls.append(1) or dict(enumerate(latents)))
    states = NoisedStates(guided, counted)
    states.prepare()
    stored(states, teacher, changed(batch_size=2))
    assert calls == [1]


def test_guided_states_have_the_identity_that_they_had():
    assert "states" not in changed(states="guided").identity()
    assert CollectConfig(states="noised", images="/some/images").identity()["states"] == "noised"
    with pytest.raises(ValidationError, match="images are noised: they need states noised"):
        CollectConfig(images="/some/images")
    with pytest.raises(ValidationError, match="states"):
        CollectConfig(states="denoised")
