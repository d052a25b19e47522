"""A rule that is made here: three passes, one with a perturbed network, one with another network."""

import copy
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, Literal

import pytest
import torch

from agd_core.data.states import GuidedStates
from agd_core.data.subjects import Subjects
from agd_core.data.trajectory import CollectConfig, collect_unit, plan_collection
from agd_core.evaluation.bench import Bench
from agd_core.evaluation.cost import measure_costs
from agd_core.evaluation.sampling import SampleConfig, sample_images
from agd_core.guidance import CONDITIONAL, UNCONDITIONAL, Guidance, GuidedDenoiser, Pass
from agd_core.models.denoiser import rowwise
from tests.storage.memory_store import MemoryTrajectoryStore

SITE = "transformer_blocks.2.attn1"


@contextmanager
def without_attention(network):
    handle = network.get_submodule(SITE).register_forward_hook(lambda module, args, output: torch.zeros_like(output))
    try:
        yield
    finally:
        handle.remove()


class PerturbedAndWeak(Guidance):
    """Away from the network without an attention, and from a weaker one without a condition."""

    kind: Literal["perturbed-and-weak"] = "perturbed-and-weak"
    weak: Any
    above: float = 0.0
    """The perturbed pass is needed in noisier latents alone."""

    def passes(self, model):
        perturbed = Pass("perturbed", attrgetter("condition"), hooks=without_attention)
        return CONDITIONAL, perturbed, Pass("weak", attrgetter("null"), model=self.weak)

    def rows(self, one, call):
        return call.noise_level > self.above if one.name == "perturbed" and self.above else None

    def combine(self, answers, call):
        conditional = answers["conditional"]
        away = 2 * conditional - answers["perturbed"] - answers["weak"]
        return conditional + rowwise(call.guidance_scale - 1, conditional) * away


@pytest.fixture(scope="module")
def weak(teacher):
    model = copy.deepcopy(teacher)
    with torch.no_grad():
        model.network.proj_out_2.weight.mul_(0.5)
    return model


@pytest.fixture
def asked(teacher):
    latents = torch.randn(2, *teacher.latent_shape, generator=torch.Generator().manual_seed(0))
    return latents, torch.tensor([950.0, 100.0]), Subjects(teacher).ask([3, 8], 4.0)


def by_hand(teacher, weak, asked):
    latents, timestep, ask = asked
    conditional = teacher.predict(*asked)
    with without_attention(teacher.network):
        perturbed = teacher.predict(*asked)
    unconditional = weak.evaluate_network(latents, timestep, ask.null)
    return conditional, perturbed, unconditional


def test_three_networks_calls_are_combined_and_nothing_is_left_behind(teacher, weak, asked):
    conditional, perturbed, unconditional = by_hand(teacher, weak, asked)
    guided, counts = GuidedDenoiser(teacher, PerturbedAndWeak(weak=weak)), (teacher, weak)
    before = [model.network_evaluations for model in counts]
    expected = conditional + 3 * (2 * conditional - perturbed - unconditional)
    assert torch.allclose(guided.predict(*asked), expected, atol=1e-5)
    assert guided.network_evaluations == 6
    assert [model.network_evaluations - was for model, was in zip(counts, before, strict=True)] == [4, 2]
    assert torch.equal(teacher.predict(*asked), conditional)
    assert not teacher.network.get_submodule(SITE)._forward_hooks


def test_a_pass_that_few_rows_need_is_evaluated_in_those(teacher, weak, asked):
    conditional, perturbed, unconditional = by_hand(teacher, weak, asked)
    guided = GuidedDenoiser(teacher, PerturbedAndWeak(weak=weak, above=1.0))
    expected = conditional + 3 * (conditional - unconditional)
    expected[0] += 3 * (conditional[0] - perturbed[0])
    assert torch.allclose(guided.predict(*asked), expected, atol=1e-5)
    assert guided.network_evaluations == 5


def test_a_pass_that_no_row_needs_is_not_evaluated(teacher, weak, asked):
    guided = GuidedDenoiser(teacher, PerturbedAndWeak(weak=weak, above=1e6))
    guided.predict(*asked)
    assert guided.network_evaluations == 4


class ThreeAtOnce(PerturbedAndWeak):
    """Passes of one network, of which the perturbed one stands between the others."""

    kind: Literal["three-at-once"] = "three-at-once"

    def passes(self, model):
        return *super().passes(model), UNCONDITIONAL


def test_passes_of_one_network_share_a_batch(teacher, weak, asked, monkeypatch):
    calls, evaluate = [], teacher.evaluate_network
    monkeypatch.setattr(teacher, "evaluate_network", lambda *args: calls.append(len(args[0])) or evaluate(*args))
    GuidedDenoiser(teacher, ThreeAtOnce(weak=weak)).predict(*asked)
    assert calls == [4, 2]


def test_sampling_and_collecting_count_three_evaluations_per_step(teacher, weak):
    guided = GuidedDenoiser(teacher, PerturbedAndWeak(weak=weak))
    config = SampleConfig(images=2, steps=3, batch_size=2, guidance_scales=(4.0,))
    assert sample_images(guided, Subjects(teacher), config).nfe == 9
    config = CollectConfig(trajectories=4, steps=3, shard_trajectories=4, dtype="float32")
    store = MemoryTrajectoryStore(plan_collection(config, Subjects(teacher), {}))
    before = guided.network_evaluations
    with store.write_unit(0) as writer:
        collect_unit(GuidedStates(guided), teacher, store.plan, writer, config)
    assert guided.network_evaluations - before == 3 * 3 * 4
    assert store.missing_units() == []


def test_the_cost_is_that_of_three_evaluations(teacher, weak):
    @contextmanager
    def opened(denoiser):
        yield denoiser

    sides = {"bare": teacher, "guided": GuidedDenoiser(teacher, PerturbedAndWeak(weak=weak))}
    methods = {name: lambda denoiser=denoiser: opened(denoiser) for name, denoiser in sides.items()}
    bare, guided = measure_costs(Bench(methods, Subjects(teacher), 2.0, (500.0,)), 0.0, 1).values()
    assert (bare.network_evaluations_per_step, guided.network_evaluations_per_step) == (1, 3)
    assert guided.gigaflops_per_step == pytest.approx(3 * bare.gigaflops_per_step)
