"""Planning and collecting guided trajectories with the real teacher."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from agd_core.basics.errors import NumericError
from agd_core.basics.progress import Stopped
from agd_core.data.records import CARRIERS, INPUT, TARGET
from agd_core.data.states import GuidedStates
from agd_core.data.subjects import Subjects
from agd_core.data.trajectory import CollectConfig, collect_unit, plan_collection
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.models.ask import Ask
from agd_core.models.denoiser import Denoiser
from agd_core.models.schedulers import build_scheduler
from storage.objects import MemoryObjects
from storage.trajectories.zarr_store import ZarrTrajectoryStore
from tests.storage.contract import shard_key
from tests.storage.memory_store import MemoryTrajectoryStore

CONFIG = CollectConfig(
    trajectories=9, steps=10, kept_steps=4, guidance_scale_min=1.0, guidance_scale_max=5.0, shard_trajectories=9
)


@pytest.fixture(scope="module")
def guided(teacher):
    return GuidedDenoiser(teacher, ClassifierFreeGuidance())


def changed(**settings):
    return CONFIG.model_copy(update=settings)


def planned(teacher, config=CONFIG):
    return plan_collection(config, Subjects(teacher), {"a": 1})


def collected(guided, teacher, config=CONFIG):
    """Everything that is stored, `[trajectories, stored_steps, 2, C, H, W]`."""
    store = MemoryTrajectoryStore(planned(teacher, config))
    for unit in store.missing_units():
        with store.write_unit(unit) as writer:
            collect_unit(GuidedStates(guided), teacher, store.plan, writer, config)
    plan = store.plan
    return store.read(np.arange(plan.pairs)).latents.reshape(-1, plan.stored_steps, *plan.pair_shape)


def test_a_longer_plan_begins_with_the_shorter_one(teacher):
    longer = planned(teacher, changed(trajectories=30))
    assert longer.trajectories[:9] == planned(teacher).trajectories
    assert longer.unit_ids[:1] == planned(teacher).unit_ids
    assert longer.dataset_id != planned(teacher).dataset_id


def test_the_plan_is_balanced_and_in_range(teacher):
    plan = planned(teacher, changed(trajectories=200))
    scales = np.array([row.scalars["guidance_scale"] for row in plan.trajectories])
    assert np.bincount([row.class_label for row in plan.trajectories]).tolist() == [20] * 10
    assert scales.min() >= 1.0
    assert scales.max() <= 5.0
    assert abs(scales.mean() - 3.0) < 0.3
    assert len({row.seed for row in plan.trajectories}) == 200
    assert (scales == plan.scalars["guidance_scale"]).all()


def test_conditions_are_planned_once_per_class(teacher):
    plan = planned(teacher, changed(trajectories=25))
    assert {name: table.tolist() for name, table in plan.conditions.items()} == {"class_labels": [*range(10), 1000]}
    assert plan.rows["condition"].tolist() == [row.class_label for row in plan.trajectories]
    assert plan.rows["null"].tolist() == [10] * 25


def test_kept_steps_are_one_from_each_part(teacher):
    for row in planned(teacher).trajectories:
        assert len(row.steps) == 4
        assert all(low <= step < high for step, low, high in zip(row.steps, (0, 2, 5, 8), (2, 5, 8, 10), strict=True))
    for all_of_them in (None, 10, 25):
        everything = planned(teacher, changed(kept_steps=all_of_them))
        assert everything.trajectories[0].steps == tuple(range(10))


def test_the_plan_holds_what_the_network_is_handed(teacher):
    schedule = build_scheduler("ddim", teacher.scheduler_config, 10).timesteps
    assert planned(teacher).timesteps == tuple(schedule.float().tolist())


@pytest.mark.parametrize(
    ("reads", "kept", "per_pair", "expected"), [(1000, 4, 4.0, 70), (1, 4, 4.0, 10), (8000, None, 0.5, 1600)]
)
def test_what_is_not_said_is_sized_from_what_training_reads(reads, kept, per_pair, expected):
    config = changed(trajectories=None, kept_steps=kept, reads_per_pair=per_pair)
    sized = config.sized(reads, 10)
    assert sized.trajectories == expected
    assert sized.trajectories * sized.stored_steps * per_pair >= reads
    assert changed(trajectories=7).sized(reads, 10).trajectories == 7


def test_a_plan_needs_a_number(teacher):
    with pytest.raises(ValueError, match="not decided yet"):
        planned(teacher, changed(trajectories=None))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_stored_is_what_the_teacher_answers(teacher, guided, dtype):
    config = changed(dtype=dtype)
    plan, stored = planned(teacher, config), collected(guided, teacher, config)
    assert stored.shape == (9, 4, 2, 4, 8, 8)
    assert stored.dtype == CARRIERS[dtype]
    latents = torch.from_numpy(stored).view(getattr(torch, dtype)).float()
    schedule = torch.tensor(plan.timesteps)
    for slot in range(4):
        answer = guided.predict(
            latents[:, slot, INPUT],
            schedule[plan.step_table[:, slot]],
            Ask(
                teacher.class_condition([row.class_label for row in plan.trajectories]),
                teacher.null_condition(len(plan.trajectories)),
                torch.from_numpy(plan.scalars["guidance_scale"]),
            ),
        )
        tolerance = {"float16": 1e-3, "bfloat16": 1e-2, "float32": 1e-5}[dtype]
        assert torch.allclose(answer, latents[:, slot, TARGET], rtol=max(tolerance, 1e-3), atol=tolerance)


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpm-solver++", "euler"])
def test_a_trajectory_does_not_depend_on_its_batch(teacher, guided, scheduler):
    config = changed(scheduler=scheduler, dtype="float32")
    together = collected(guided, teacher, config)
    alone = collected(guided, teacher, config.model_copy(update={"batch_size": 2}))
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together, alone, atol=2e-5 * max(1.0, np.abs(together).max()))


@pytest.mark.parametrize("lost", range(6))
def test_a_unit_that_is_finished_later_equals_an_unbroken_one_to_the_bit(teacher, guided, lost):
    """Batches are those of the whole unit, whatever is left to do: alone, a row gets other last bits."""
    config = changed(trajectories=6, dtype="float32", shard_trajectories=1, unit_trajectories=6, batch_size=4)
    store = ZarrTrajectoryStore.prepare(MemoryObjects(), planned(teacher, config))
    digests = []
    for _ in range(2):
        with store.write_unit(0) as writer:
            collect_unit(GuidedStates(guided), teacher, store.plan, writer, config)
        digests.append(store.content_digest())
        for key in ("index/u-000000.parquet", shard_key(lost)):
            store.objects.delete(key)
    assert digests[0] == digests[1]


def test_a_finished_unit_is_not_computed_again(teacher):
    store = ZarrTrajectoryStore.prepare(MemoryObjects(), planned(teacher))
    for teacher_guided in (Constant(1.0), Constant(float("nan"))):
        with store.write_unit(0) as writer:
            collect_unit(GuidedStates(teacher_guided), teacher, store.plan, writer, CONFIG)


def test_a_unit_can_be_stopped_between_two_steps(teacher):
    store, polls = MemoryTrajectoryStore(planned(teacher)), iter([False, False, True])
    with pytest.raises(Stopped, match="within a unit"), store.write_unit(0) as writer:
        collect_unit(GuidedStates(Constant(1.0)), teacher, store.plan, writer, CONFIG, lambda: next(polls))
    assert store.missing_units() == [0]


class Constant(Denoiser):
    network_evaluations = 0

    def __init__(self, value):
        self.value = value

    def predict(self, latents, timestep, ask):
        return latents * 0 + self.value


NO_ANSWER = r"the network's answer is NaN or infinite \(are its weights whole\?\) at step 1 of \d+ of ddim"


@pytest.mark.parametrize(
    ("dtype", "value", "words"),
    [
        (
            "float16",
            1e6,
            r"does not fit float16 \(collect.dtype; float32 holds it\) at step 1 of \d+ of ddim \(timestep",
        ),
        ("bfloat16", 3.4e38, "does not fit bfloat16"),
        ("float16", float("nan"), NO_ANSWER),
        ("float32", float("inf"), NO_ANSWER),
        ("float32", float("nan"), NO_ANSWER),
    ],
)
def test_a_value_that_does_not_fit_or_is_no_number_is_an_error(teacher, dtype, value, words):
    config = changed(dtype=dtype)
    store = MemoryTrajectoryStore(planned(teacher, config))
    with pytest.raises(NumericError, match=words), store.write_unit(0) as writer:
        collect_unit(GuidedStates(Constant(value)), teacher, store.plan, writer, config)
    assert store.missing_units() == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"guidance_scale_min": 5.0, "guidance_scale_max": 2.0},
            "guidance_scale_min 5 must be below guidance_scale_max 2",
        ),
        ({"kept_steps": 0}, "kept_steps"),
        (
            {"shard_trajectories": 4, "unit_trajectories": 6},
            "unit_trajectories 6 must be a multiple of shard_trajectories 4",
        ),
        ({"scheduler": "magic"}, "scheduler"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        CollectConfig(**change)
