from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agd_core.basics.errors import InputError
from agd_core.data.order import BatchOrder, Permutation, StreamOrder, batch_indices

FOR_ALL = settings(max_examples=60, deadline=None, derandomize=True)
KEYS = st.integers(0, 2**64 - 1)
SEEDS = st.integers(0, 2**31)


@st.composite
def orders(draw, **fixed):
    """Either kind of order; `fixed` replaces what would be drawn."""
    batch_size = fixed.pop("batch_size", None) or draw(st.integers(1, 60))
    values = {"batch_size": batch_size, "seed": draw(SEEDS)} | fixed
    examples = draw(st.integers(1, 40))
    if draw(st.booleans()):
        return BatchOrder(examples, **values)
    return StreamOrder(Permutation(examples, draw(KEYS)), draw(st.integers(1, 50)), **values)


def with_ranks(order, world_size):
    """The same order as each of these ranks sees it."""
    return [type(order)(**(vars(order) | {"rank": rank, "world_size": world_size})) for rank in range(world_size)]


def sequence(order, epochs):
    steps = -(-epochs * order.epoch_pairs // order.batch_size)
    return np.concatenate([order.pairs(step) for step in range(steps)])[: epochs * order.epoch_pairs]


def too_uneven(counts):
    """A chi-square statistic more than five standard deviations above what a uniform draw gives."""
    freedom = counts.size - 1
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    return statistic > freedom + 5 * (2 * freedom) ** 0.5


# --- Permutation


@FOR_ALL
@given(size=st.integers(1, 700), key=KEYS)
def test_every_value_comes_exactly_once_and_the_inverse_finds_it(size, key):
    shuffle, positions = Permutation(size, key), np.arange(size)
    values = shuffle.forward(positions)
    assert values.dtype == np.int64
    assert np.array_equal(np.sort(values), positions)
    assert np.array_equal(shuffle.inverse(values), positions)
    assert np.array_equal(shuffle.forward(shuffle.inverse(positions)), positions)


@FOR_ALL
@given(size=st.integers(1, 2**60), key=KEYS, data=st.data())
def test_a_huge_shuffle_can_be_asked_anywhere(size, key, data):
    shuffle = Permutation(size, key)
    positions = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=20)), dtype=np.int64)
    values = shuffle.forward(positions)
    assert np.array_equal(shuffle.inverse(values), positions)
    assert np.array_equal(values, [shuffle.forward(positions[i : i + 1])[0] for i in range(len(positions))])


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_order_of_a_few_values_is_equally_frequent(size):
    indices = {order: index for index, order in enumerate(permutations(range(size)))}
    drawn = [indices[tuple(Permutation(size, key).forward(np.arange(size)).tolist())] for key in range(2400)]
    assert not too_uneven(np.bincount(drawn, minlength=len(indices)))


@pytest.mark.parametrize("size", [2**16, 2**16 + 1, 50_000])
@pytest.mark.parametrize("key", [0, 1, 2**63])
def test_a_shuffle_looks_random(size, key):
    values = Permutation(size, key).forward(np.arange(size))
    cells = values * 16 // size
    by_position = np.histogram2d(np.arange(size), cells, bins=16)[0]
    by_neighbour = np.histogram2d(cells[:-1], cells[1:], bins=16)[0]
    low_bits = np.bincount((values[:-1] % 16) * 16 + values[1:] % 16)
    assert not any(too_uneven(counts.ravel()) for counts in (by_position, by_neighbour, low_bits))
    assert np.abs(np.diff(values)).mean() == pytest.approx(size / 3, rel=0.01)


def test_shuffles_of_neighbouring_keys_have_nothing_in_common():
    positions = np.arange(50_000)
    drawn = [Permutation(len(positions), key).forward(positions) for key in range(6)]
    matches = [np.count_nonzero(a == b) for i, a in enumerate(drawn) for b in drawn[:i]]
    assert max(matches) < 10  # Poisson with mean 1
    correlations = np.corrcoef(drawn)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 5 / len(positions) ** 0.5


@pytest.mark.parametrize("positions", [[5], [-1], [0, 1, 7]])
def test_an_index_outside_is_refused(positions):
    for ask in (Permutation(5, 0).forward, Permutation(5, 0).inverse):
        with pytest.raises(IndexError, match=r"not all in \[0, 5\)"):
            ask(np.array(positions))


def test_the_order_is_part_of_every_result_and_never_changes():
    assert Permutation(10, 0).forward(np.arange(10)).tolist() == [9, 4, 2, 1, 8, 7, 6, 3, 0, 5]
    assert BatchOrder(10, 4, seed=0).pairs(2).tolist() == [7, 2, 1, 2]
    assert StreamOrder(Permutation(10, 0), 4, 4, seed=0).pairs(2).tolist() == [2, 1, 0, 5]


# --- what holds for both orders


@FOR_ALL
@given(order=orders())
def test_every_pair_comes_exactly_once_per_epoch(order):
    epochs = sequence(order, 3).reshape(3, order.epoch_pairs)
    assert np.array_equal(np.sort(epochs), np.tile(np.arange(order.epoch_pairs), (3, 1)))


@FOR_ALL
@given(order=orders(), step=st.integers(0, 10**9))
def test_every_batch_is_full_whatever_its_size(order, step):
    pairs = order.pairs(step)
    assert pairs.shape == (order.batch_size,)
    assert pairs.dtype == np.int64


@FOR_ALL
@given(order=orders(), steps=st.permutations(range(5)))
def test_a_batch_depends_on_its_step_and_not_on_the_steps_before(order, steps):
    in_order = [order.pairs(step) for step in range(5)]
    assert all(np.array_equal(order.pairs(step), in_order[step]) for step in steps)


@FOR_ALL
@given(order=orders(), batch_size=st.integers(1, 60))
def test_batch_size_cuts_the_same_sequence(order, batch_size):
    other = type(order)(**(vars(order) | {"batch_size": batch_size}))
    assert np.array_equal(sequence(order, 3), sequence(other, 3))


@FOR_ALL
@given(order=orders(batch_size=13), world_size=st.integers(1, 13), step=st.integers(0, 1000))
def test_the_ranks_share_each_batch_for_every_world_size(order, world_size, step):
    shares = [rank.pairs(step) for rank in with_ranks(order, world_size)]
    assert [len(share) for share in shares] == [len(part) for part in np.array_split(np.arange(13), world_size)]
    assert np.array_equal(np.concatenate(shares), order.pairs(step))


@FOR_ALL
@given(order=orders(), step=st.integers(0, 1000))
def test_the_state_says_where_a_step_begins(order, step):
    state = order.state(step)
    assert set(state) == {"seed", "examples", "batch_size", "epoch", "position"}
    assert state["epoch"] * state["examples"] + state["position"] == step * order.batch_size
    assert order.pairs(step)[0] == order.at(state["epoch"], np.array([state["position"]]))[0]


@pytest.mark.parametrize("kind", [BatchOrder, lambda n, *rest: StreamOrder(Permutation(n, 7), 4, *rest)])
def test_epochs_and_seeds_shuffle_differently(kind):
    first, second = sequence(kind(32, 32, 0), 2).reshape(2, 32)
    other_seed = kind(32, 32, 1).pairs(0)
    in_order = np.arange(32)
    for a, b in [(first, second), (first, other_seed), (first, in_order)]:
        assert not np.array_equal(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Permutation(0, 0), "at least 1"),
        (lambda: BatchOrder(0, 4, 0), "no pairs"),
        (lambda: BatchOrder(9, 4, 0, rank=2, world_size=2), "allowed: 0 to 1"),
        (lambda: BatchOrder(9, 4, 0, world_size=5), "allowed: 1 to 4"),
        (lambda: StreamOrder(Permutation(9, 0), 0, 4, 0), "tar_samples is 0"),
    ],
)
def test_an_impossible_order_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


# --- StreamOrder


@FOR_ALL
@given(size=st.integers(1, 60), tar_samples=st.integers(1, 70), seed=SEEDS, key=KEYS, epoch=st.integers(0, 5))
def test_a_stream_reads_whole_tars_front_to_back(size, tar_samples, seed, key, epoch):
    stored = Permutation(size, key)
    order = StreamOrder(stored, tar_samples, size, seed)
    read = stored.inverse(order.at(epoch, np.arange(size))).tolist()
    visited = list(dict.fromkeys(position // tar_samples for position in read))
    tars = [range(first, min(first + tar_samples, size)) for first in range(0, size, tar_samples)]
    assert sorted(visited) == list(range(order.tars))
    assert read == [position for tar in visited for position in tars[tar]]


def test_a_stream_visits_the_tars_in_another_order_each_epoch():
    order = StreamOrder(Permutation(64, 7), 2, 64, 0)
    tars = [(order.stored.inverse(order.pairs(epoch))[::2] // 2).tolist() for epoch in range(3)]
    assert len(set(map(tuple, tars))) == 3


# --- tensors, for the built-in teacher


def test_batch_indices_are_the_same_order_as_a_tensor():
    indices = batch_indices(10, 4, 3, 2)
    assert indices.dtype == torch.int64
    assert indices.tolist() == BatchOrder(10, 4, 3).pairs(2).tolist()


def test_a_caller_may_change_its_batch():
    before = batch_indices(5, 5, 3, 0).clone()
    batch_indices(5, 5, 3, 0).zero_()
    assert torch.equal(batch_indices(5, 5, 3, 0), before)
