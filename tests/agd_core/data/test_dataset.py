import multiprocessing
import pickle
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from agd_core.basics.errors import InputError
from agd_core.data.dataset import (
    StepSampler,
    TrainingBatches,
    TrajectoryDataset,
    TrajectoryStream,
    identity,
    latents_tensor,
    tensor_of,
    training_batches,
)
from agd_core.data.order import BatchOrder, Permutation, StreamOrder
from agd_core.data.records import CARRIERS, CollectionPlan, PlannedTrajectory, StepBatch, TrajectoryReader, step_batch
from agd_core.models.condition import Condition

FOR_ALL = settings(max_examples=25, deadline=None, derandomize=True)
CPU = torch.device("cpu")
STEPS = 12
"""Of 8 pairs each: three epochs of 32."""
START = "forkserver"
"""From a clean process that has this module loaded: in a fork of this one, what Prefect's own threads leave behind in
other tests makes workers end with exit code 1."""
multiprocessing.set_forkserver_preload([__name__])
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines with one core


def make_plan(dtype="float16"):
    planned = [
        PlannedTrajectory(i, 100 + i, {"condition": i % 3}, {"guidance_scale": 1.0 + i}, (1, 3, 4, 9)) for i in range(8)
    ]
    conditions = {
        "class_labels": np.array([7, 5, 2]),
        "encoder_hidden_states": np.arange(12, dtype=np.float32).reshape(3, 2, 2),
    }
    timesteps = tuple(999.0 - 100 * step for step in range(10))
    return CollectionPlan(tuple(planned), timesteps, conditions, (1, 2, 2), dtype, 2, 4, {})


@dataclass(frozen=True)
class MemoryReader:
    """A pair's latents hold its index; a damaged pair raises."""

    plan: CollectionPlan
    damaged: int = -1
    reads: list = field(default_factory=list)

    def read(self, pairs: np.ndarray) -> StepBatch:
        self.reads.append(pairs)
        if self.damaged in pairs:
            raise OSError(f"pair {self.damaged} is damaged")
        latents = np.arange(8, dtype=np.float16) + 8 * pairs[:, None].astype(np.float16)
        return step_batch(self.plan, pairs, latents.reshape(-1, *self.plan.pair_shape))


PLAN = make_plan()
READER = MemoryReader(PLAN)
STORED = Permutation(PLAN.pairs, 11)
MAP, STREAM = BatchOrder(PLAN.pairs, 8, 3), StreamOrder(STORED, 5, 8, 3)
ORDERS = pytest.mark.parametrize("order", [MAP, STREAM], ids=["map", "stream"])


def arrays(batch):
    return [batch.latents, batch.timesteps, *batch.scalars.values(), *batch.rows.values()]


def same(a, b):
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def all_same(batches, order, steps):
    """Whether these are the batches of these steps, bit for bit and no more."""
    expected = [READER.read(order.pairs(step)) for step in steps]
    batches = list(batches)
    return len(batches) == len(expected) and all(map(same, batches, expected))


def take(batches, count):
    """Use that many batches, then stop early, as an interrupted run does."""
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def prefetching():
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]
    return threads + multiprocessing.active_children()


@pytest.fixture(autouse=True)
def _nothing_runs_on():
    yield
    assert prefetching() == []


# --- resuming


@FOR_ALL
@given(
    cut=st.integers(0, STEPS),
    world_sizes=st.tuples(*[st.sampled_from([1, 2, 4])] * 2),
    stream=st.booleans(),
    batch_size=st.sampled_from([5, 8]),
    prefetch=st.integers(1, 4),
)
def test_a_resumed_run_goes_on_with_the_very_next_batch(cut, world_sizes, stream, batch_size, prefetch):
    def rank_of(rank, world_size):
        rest = (batch_size, 3, rank, world_size)
        return StreamOrder(STORED, 5, *rest) if stream else BatchOrder(PLAN.pairs, *rest)

    def latents(world_size, first, stop):
        ranks = [rank_of(rank, world_size) for rank in range(world_size)]
        runs = [training_batches(READER, rank, range(first, STEPS), prefetch=prefetch) for rank in ranks]
        shares = [take(run, stop - first) for run in runs]
        return [np.concatenate([batch.latents for batch in step]) for step in zip(*shares, strict=True)]

    resumed = latents(world_sizes[0], 0, cut) + latents(world_sizes[1], cut, STEPS)
    assert np.array_equal(resumed, latents(1, 0, STEPS))


@ORDERS
@pytest.mark.parametrize("cut", [3, 4], ids=["mid-epoch", "at the end of an epoch"])
@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 1), (1, 0)])
def test_the_number_of_workers_may_change_on_resume(order, cut, before, after):
    assert (order.state(cut)["position"] == 0) == (cut == 4)
    first = take(training_batches(READER, order, range(STEPS), before, start_method=START), cut)
    rest = training_batches(READER, order, range(cut, STEPS), after, start_method=START)
    assert all_same(first, order, range(cut))
    assert all_same(rest, order, range(cut, STEPS))


def test_spawned_workers_deliver_the_same_batches():
    assert all_same(training_batches(READER, STREAM, range(2, 7), workers=2), STREAM, range(2, 7))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("first_step", [0, 3, 4])
def test_a_stream_shares_its_steps_among_workers(workers, first_step):
    stream = TrajectoryStream(READER, STREAM, range(first_step, 9))
    context = START if workers else None
    loader = DataLoader(
        stream, batch_size=None, collate_fn=identity, num_workers=workers, multiprocessing_context=context
    )
    assert all_same(loader, STREAM, range(first_step, 9))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_finished_run_has_no_batch_left(workers):
    assert list(training_batches(READER, MAP, range(STEPS, STEPS), workers, start_method=START)) == []


def test_workers_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    list(training_batches(READER, MAP, range(2), workers=1, start_method=START))
    assert torch.equal(torch.get_rng_state(), before)


# --- the prefetch thread


@ORDERS
@pytest.mark.parametrize("prefetch", [1, 3])
def test_only_a_few_batches_are_read_ahead(order, prefetch):
    reader = MemoryReader(PLAN)
    take(training_batches(reader, order, range(STEPS), prefetch=prefetch), 2)
    assert 2 <= len(reader.reads) <= 2 + prefetch


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_stopping_early_ends_the_thread(taken):
    batches = training_batches(READER, MAP, range(STEPS))
    take(batches, taken)
    assert prefetching() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_the_readers_error_surfaces_at_its_step(workers):
    reader = MemoryReader(PLAN, damaged=int(MAP.pairs(2)[3]))
    batches = training_batches(reader, MAP, range(STEPS), workers, start_method=START)
    assert all_same([next(batches), next(batches)], MAP, range(2))
    with pytest.raises(OSError, match="is damaged") as kept:
        next(batches)
    assert prefetching() == [], f"while {kept.value!r} is still held"
    assert list(batches) == []


def test_no_prefetching_at_all_is_refused():
    with pytest.raises(InputError, match="prefetch is 0"):
        next(training_batches(READER, MAP, range(STEPS), prefetch=0))


# --- batches by step


@pytest.mark.parametrize("first_step", [0, 5])
def test_batches_are_asked_for_by_step_from_any_step_on(first_step):
    with TrainingBatches(READER, MAP, STEPS) as batches:
        assert all_same([batches.at(step) for step in range(first_step, STEPS)], MAP, range(first_step, STEPS))


def test_nothing_is_read_before_the_first_step_is_asked_for():
    reader = MemoryReader(PLAN)
    with TrainingBatches(reader, MAP, STEPS):
        assert reader.reads == []
        assert prefetching() == []


@pytest.mark.parametrize("step", [1, 2, 4, STEPS])
def test_a_step_that_is_not_the_next_is_refused(step):
    with TrainingBatches(READER, MAP, STEPS) as batches:
        batches.at(2)
        with pytest.raises(ValueError, match=f"asked for step {step}, but step 3 of 12 is next"):
            batches.at(step)
        assert same(batches.at(3), READER.read(MAP.pairs(3)))


def test_a_step_past_the_end_is_refused():
    with TrainingBatches(READER, MAP, STEPS) as batches, pytest.raises(ValueError, match="step 12"):
        batches.at(STEPS)


def test_a_failed_step_ends_the_thread():
    def fail():
        with TrainingBatches(READER, MAP, STEPS) as batches:
            batches.at(0)
            raise ArithmeticError("loss is nan")

    with pytest.raises(ArithmeticError, match="nan"):
        fail()
    assert prefetching() == []


# --- the dataset


def test_the_dataset_has_every_pair_one_by_one_and_in_batches():
    dataset = TrajectoryDataset(READER)
    assert isinstance(READER, TrajectoryReader)
    assert len(dataset) == PLAN.pairs == len(list(dataset))
    assert same(dataset[9], READER.read(np.array([9])))
    assert same(dataset.__getitems__([4, 30, 4]), READER.read(np.array([4, 30, 4])))
    for pair in (-1, PLAN.pairs):
        with pytest.raises(IndexError, match=f"pair {pair} "):
            dataset[pair]


def test_a_dataset_is_as_picklable_as_its_reader():
    dataset = pickle.loads(pickle.dumps(TrajectoryDataset(READER)))
    assert same(dataset[3], READER.read(np.array([3])))


def test_a_sampler_knows_how_many_steps_are_left():
    assert len(StepSampler(MAP, range(3, STEPS))) == 9
    assert len(list(StepSampler(MAP, range(3, STEPS)))) == 9
    assert len(StepSampler(MAP, range(STEPS, STEPS))) == 0


# --- tensors


@pytest.mark.parametrize("dtype", list(CARRIERS))
def test_latents_keep_their_value_in_every_stored_type(dtype):
    values = torch.tensor([0.0, -1.5, 3.140625, 2.0**-14, 60000.0]).to(getattr(torch, dtype))
    carrier = values.view(torch.uint16).numpy() if dtype == "bfloat16" else values.numpy()
    assert carrier.dtype == CARRIERS[dtype]
    latents = latents_tensor(carrier, dtype, CPU)
    assert latents.dtype == torch.float32
    assert torch.equal(latents, values.float())


@pytest.mark.parametrize("dtype", list(CARRIERS))
def test_strided_views_are_understood(dtype):
    whole = np.arange(96).astype(CARRIERS[dtype]).reshape(2, 4, 3, 2, 2)
    view = whole[:, ::2, 1:]
    assert torch.equal(latents_tensor(view, dtype, CPU), latents_tensor(view.copy(), dtype, CPU))


def test_a_writable_view_is_not_copied():
    whole = np.zeros((4, 6), dtype=np.float32)
    assert tensor_of(whole[::2, 1:], CPU).data_ptr() == whole[::2, 1:].ctypes.data


def test_a_read_only_array_is_copied_so_that_nothing_writes_to_it():
    array = np.arange(4, dtype=np.float32)
    array.flags.writeable = False
    for tensor in (tensor_of(array, CPU), latents_tensor(array, "float32", CPU)):
        tensor.zero_()
    assert array.tolist() == [0, 1, 2, 3]


def test_a_batch_knows_the_rows_of_its_conditions():
    batch = READER.read(np.array([0, 4, 8, 12]))
    condition = Condition.from_arrays(PLAN.conditions, CPU)[tensor_of(batch.rows["condition"], CPU)]
    assert condition["class_labels"].tolist() == [7, 5, 2, 7]
    assert condition["class_labels"].dtype == torch.int64


def test_a_killed_reading_process_is_one_line_that_says_how_to_go_on():
    before = set(multiprocessing.active_children())
    with (
        pytest.raises(ChildProcessError, match=r"^DataLoader worker .*run the same command again") as death,
        TrainingBatches(READER, MAP, STEPS, workers=1) as batches,
    ):
        batches.at(0)
        (reader,) = set(multiprocessing.active_children()) - before
        reader.kill()
        reader.join()
        for step in range(1, STEPS):
            batches.at(step)
    assert "\n" not in str(death.value)


def test_other_errors_are_not_taken_for_a_reading_process():
    with pytest.raises(RuntimeError, match=r"^mine$"), TrainingBatches(READER, MAP, STEPS):
        raise RuntimeError("mine")
