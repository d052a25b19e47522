"""What holds for every metric; a new one needs an example in `examples.py`."""

from dataclasses import replace

import pytest
import torch

from agd_core.basics.errors import NumericError
from agd_core.evaluation.metrics import METRICS, Measured, quantities
from tests.agd_core.evaluation.metrics.examples import CASES, EXAMPLES, settings, there_and_back

CASE_NAMES = [f"{name}, {example.samples.agreement_metric}" for name, example in CASES]
EVERY_CASE = pytest.mark.parametrize(("name", "example"), CASES, ids=CASE_NAMES)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return settings(tmp_path_factory.mktemp("weights"))


def test_every_metric_has_an_example():
    assert set(EXAMPLES) == set(METRICS)


def test_every_quantity_is_measured_in_some_example(config):
    found = [METRICS[name].scores(example.measured, config) for name, example in CASES]
    assert {name for scores in found for name in scores} == set(quantities())


def test_no_two_quantities_have_one_name_and_every_one_says_what_it_means():
    every = [quantity for metric in METRICS.values() for quantity in metric.quantities]
    assert len({quantity.name for quantity in every}) == len(every)
    assert len({quantity.in_words for quantity in every}) == len(every)
    for quantity in every:
        assert quantity.meaning.endswith(".")
        assert "\n" not in quantity.meaning
        assert quantity.format.format(0.5)
        assert quantity.least < quantity.most


@EVERY_CASE
def test_scores_are_the_metrics_own_quantities_with_their_direction(name, example, config):
    known = {quantity.name: quantity for quantity in METRICS[name].quantities}
    for found, score in METRICS[name].scores(example.measured, config).items():
        assert score.better == known[found].better
        assert known[found].least <= score.value <= known[found].most
        assert score.method
        assert score.low is None or score.low <= score.value <= score.high or known[found].most == 1.0


@EVERY_CASE
def test_nothing_is_better_than_a_set_against_itself(name, example, config):
    own, other = (METRICS[name].scores(each, config) for each in (example.itself, example.measured))
    compared = [found for found in METRICS[name].quantities if found.name in own and found.needs & {"guided", "real"}]
    for quantity in compared:
        best, worse = own[quantity.name].value, other[quantity.name].value
        assert best <= worse if quantity.better == "lower" else best >= worse
        if quantity.better == "lower" and quantity.least > -1:
            assert best == pytest.approx(0.0, abs=1e-6)


@EVERY_CASE
def test_equal_calls_give_equal_scores_and_leave_the_random_state(name, example, config):
    before = torch.get_rng_state()
    once, again = (METRICS[name].scores(example.measured, config) for _ in range(2))
    assert once == again
    assert torch.equal(torch.get_rng_state(), before)


@EVERY_CASE
def test_paired_scores_depend_neither_on_the_order_nor_on_the_number_of_images(name, example, config):
    """Every image there and back again has the mean of the images once."""
    whole = example.measured
    twice = Measured(there_and_back(whole.samples), there_and_back(whole.guided), whole.reference)
    once, again = (METRICS[name].scores(measured, config) for measured in (whole, twice))
    for quantity in METRICS[name].quantities:
        if quantity.paired:
            assert again[quantity.name].value == pytest.approx(once[quantity.name].value, rel=1e-6)


@EVERY_CASE
def test_what_is_no_number_is_refused_or_said(name, example, config):
    for tensor in example.broken:
        broken = getattr(example.samples, tensor).clone()
        broken.view(len(broken), -1)[3, 0] = torch.nan
        samples = replace(example.samples, **{tensor: broken})
        said = what_is_said(METRICS[name], replace(example.measured, samples=samples), config)
        assert said
        assert all("\n" not in line for line in said)


def what_is_said(metric, measured, config):
    """The refusal, or a warning of each score that is no number."""
    try:
        scores = metric.scores(measured, config)
    except NumericError as error:
        return [str(error)]
    lost = [score for score in scores.values() if score.value is None]
    assert {(score.standard_error, score.low, score.high) for score in lost} <= {(None, None, None)}
    return [score.warnings[-1] for score in lost]


@EVERY_CASE
def test_with_nothing_to_look_at_there_is_no_score(name, example, config):
    blind = replace(example.samples, features=None, logits=None, agreement=None, ranks=None)
    assert METRICS[name].scores(Measured(blind, None, None), config) == {}
