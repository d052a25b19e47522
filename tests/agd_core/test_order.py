import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agd_core.order import batch_indices

FOR_ALL = settings(max_examples=60, deadline=None, derandomize=True)
SIZES = {"examples": st.integers(1, 40), "batch_size": st.integers(1, 60), "seed": st.integers(0, 2**31)}


def stream(examples, batch_size, seed, epochs):
    steps = -(-epochs * examples // batch_size)
    return torch.cat([batch_indices(examples, batch_size, seed, step) for step in range(steps)])


@FOR_ALL
@given(**SIZES)
def test_every_example_comes_exactly_once_per_epoch(examples, batch_size, seed):
    epochs = stream(examples, batch_size, seed, 3)[: 3 * examples].view(3, examples)
    assert torch.equal(epochs.sort(dim=1).values, torch.arange(examples).expand(3, examples))


@FOR_ALL
@given(**SIZES, step=st.integers(0, 10**6))
def test_every_batch_is_full_whatever_its_size(examples, batch_size, seed, step):
    batch = batch_indices(examples, batch_size, seed, step)
    assert batch.shape == (batch_size,)
    assert batch.dtype == torch.int64


@FOR_ALL
@given(**SIZES, steps=st.permutations(range(8)))
def test_a_batch_depends_on_its_step_and_not_on_the_steps_before(examples, batch_size, seed, steps):
    in_order = [batch_indices(examples, batch_size, seed, step) for step in range(8)]
    for step in steps:
        assert torch.equal(batch_indices(examples, batch_size, seed, step), in_order[step])


@FOR_ALL
@given(**SIZES, other_size=st.integers(1, 60))
def test_batch_size_cuts_the_same_stream(examples, batch_size, seed, other_size):
    a, b = (stream(examples, size, seed, 3)[: 3 * examples] for size in (batch_size, other_size))
    assert torch.equal(a, b)


def test_epochs_and_seeds_shuffle_differently():
    first, second = stream(32, 32, 0, 2).view(2, 32)
    assert not torch.equal(first, second)
    assert not torch.equal(first, batch_indices(32, 32, 1, 0))
    assert not torch.equal(first, torch.arange(32))


def test_a_caller_may_change_its_batch():
    before = batch_indices(5, 5, 3, 0).clone()
    batch_indices(5, 5, 3, 0).zero_()
    assert torch.equal(batch_indices(5, 5, 3, 0), before)
