"""What counts of the rounds that a stopwatch sees, by a clock that is told the time."""

import itertools

import pytest
import torch

from agd_core.basics.progress import Stopped
from flows.stages.stopwatch import Stopwatch

CPU = torch.device("cpu")


def watch(times, **others):
    return Stopwatch(CPU, clock=iter(times).__next__, **others)


def endless(units):
    def repeat(tick):
        for each in itertools.cycle(units):
            tick(each)

    return repeat


def test_the_first_round_does_not_count_and_the_median_does():
    assert watch([50, 51, 54, 56, 66]).seconds_per_unit(endless([1]), budget=16) == 2.5


def test_times_are_those_of_a_unit():
    assert watch([0, 4, 6]).seconds_per_unit(endless([9, 4, 2]), budget=5) == 1


def test_one_round_is_made_whatever_the_budget():
    assert watch([0, 100]).seconds_per_unit(endless([1]), budget=0) == 100


def test_fast_rounds_end_before_the_budget():
    made = itertools.count()
    Stopwatch(CPU, clock=made.__next__).seconds_per_unit(endless([1]), budget=1e9)
    assert next(made) == 31


def test_it_stops_when_asked_to():
    with pytest.raises(Stopped):
        watch([0], should_stop=lambda: True).seconds_per_unit(endless([1]), budget=1)


def test_an_error_of_the_work_is_not_swallowed():
    def broken(tick):
        tick(1)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        watch([0]).seconds_per_unit(broken, budget=1)
