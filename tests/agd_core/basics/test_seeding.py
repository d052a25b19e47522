import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agd_core.basics.seeding import derive_seed, generator, stacked_noise

FOR_ALL = settings(max_examples=40, deadline=None, derandomize=True)


def noise(seeds, shape=(2, 3)):
    return stacked_noise([generator(seed, "noise") for seed in seeds], shape)


@FOR_ALL
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6), st.data())
def test_noise_of_a_row_does_not_depend_on_the_rows_beside_it(seeds, data):
    row = data.draw(st.integers(0, len(seeds) - 1))
    assert torch.equal(noise(seeds)[row], noise([seeds[row]])[0])


def test_noise_is_standard_normal_float32_of_the_asked_shape():
    sample = noise([1, 2], shape=(4, 50, 50))
    assert sample.shape == (2, 4, 50, 50)
    assert sample.dtype == torch.float32
    assert abs(float(sample.mean())) < 0.03
    assert abs(float(sample.std()) - 1) < 0.03


def test_one_generator_gives_new_noise_at_every_call():
    source = generator(7, "sampler")
    assert not torch.equal(stacked_noise([source], (4,)), stacked_noise([source], (4,)))


def test_global_random_state_is_neither_read_nor_moved():
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), noise([5])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(noise([5]), first)


@FOR_ALL
@given(st.lists(st.integers() | st.text(), max_size=4))
def test_seeds_fit_a_signed_64_bit_column_and_a_torch_generator(parts):
    seed = derive_seed(*parts)
    assert 0 <= seed < 2**63
    assert generator(*parts).initial_seed() == seed


@pytest.mark.parametrize(
    "other", [("1", "noise", 2), (1, "noise", 3), (1, "noise2"), (1, "noise", 2, 0), ("noise", 1, 2)]
)
def test_every_part_its_type_and_its_place_matter(other):
    assert derive_seed(*other) != derive_seed(1, "noise", 2)


def test_seeds_stay_what_stored_data_were_made_with():
    assert derive_seed(0, "noise", 0) == 6282091568461096487
