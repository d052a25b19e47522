"""Costs on a network whose FLOPs, memory and times are known: the clock is a fake that the network itself advances."""

from contextlib import contextmanager, nullcontext
from functools import partial

import pytest
import torch
from torch import nn

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped, never, silent
from agd_core.data.subjects import Subjects
from agd_core.evaluation.bench import Bench
from agd_core.evaluation.cost import MIN_ROUNDS, measure_costs
from agd_core.guidance import (
    CachedGuidance,
    ClassifierFreeGuidance,
    GatedGuidance,
    GuidedDenoiser,
    IntervalGuidance,
)
from agd_core.memory.peak_memory import peak_memory
from agd_core.methods import CrossAttentionConfig, OffsetConfig
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Denoiser
from agd_core.models.model import BaseModel
from agd_core.models.schedulers import noise_level

CPU = torch.device("cpu")
WIDTH = 12
TIMESTEPS = (900.0, 700.0, 500.0, 300.0)


class Timed(BaseModel):
    """One linear layer; a call takes a second plus `second_per_row` of every row, up to `rows` rows of memory."""

    def __init__(self, second_per_row=0.0, rows=10**6):
        self.layer = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.prediction_channels = 3
        self.latent_shape, self.class_names, self.scheduler_config = (3, 2, 2), ("a", "b"), {}
        self.device, self.dtype = CPU, torch.float32
        self.now, self.calls = 0.0, []
        self.second_per_row, self.rows = second_per_row, rows

    def evaluate_network(self, latents, timestep, condition):
        if len(latents) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        self.now += 1 + self.second_per_row * len(latents)
        return self.layer(latents.flatten(1)).reshape(latents.shape)

    def class_condition(self, labels):
        return Condition(class_labels=torch.tensor(labels))

    def null_condition(self, batch, negative_prompt=None):
        return Condition(class_labels=torch.full((batch,), 2))

    def clock(self):
        return self.now

    def named(self, name, denoiser):
        @contextmanager
        def opened():
            self.calls.append(name)
            yield denoiser

        return opened

    decode = None


class Slower(Denoiser):
    """As the base model, but for 10 % of a second more."""

    def __init__(self, base_model):
        self.base_model = base_model

    @property
    def network_evaluations(self):
        return self.base_model.network_evaluations

    def predict(self, latents, timestep, ask):
        self.base_model.now += 0.1
        return self.base_model.predict(latents, timestep, ask)


def measure(base_model, seconds=1e9, largest_batch=4096, should_stop=never, on_progress=silent):
    guided = GuidedDenoiser(base_model, ClassifierFreeGuidance())
    sides = {"bare": base_model, "CFG": guided, "slower": Slower(base_model)}
    methods = {name: base_model.named(name, denoiser) for name, denoiser in sides.items()}
    bench = Bench(methods, Subjects(base_model), 2.0, TIMESTEPS, False, should_stop, base_model.clock)
    return measure_costs(bench, seconds, largest_batch, on_progress)


def test_evaluations_are_counted_and_flops_are_those_of_the_layer():
    costs = measure(Timed(), seconds=0.0)
    assert [cost.network_evaluations_per_step for cost in costs.values()] == [1, 2, 1]
    one = 2 * WIDTH * WIDTH / 1e9
    assert [cost.gigaflops_per_step for cost in costs.values()] == [one, 2 * one, one]


def test_methods_take_turns():
    base_model = Timed()
    measure(base_model, largest_batch=1)
    counting, warming, *rounds, memory = [base_model.calls[i : i + 3] for i in range(0, len(base_model.calls), 3)]
    assert len(rounds) == 30
    assert all(turn == ["bare", "CFG", "slower"] for turn in (counting, warming, *rounds, memory))


def test_rounds_depend_on_the_time_that_there_is():
    """A round takes 3.1 s, a twentieth of the time is left for it."""
    for seconds, rounds in ((0.0, 2), (10.0, 4), (100.0, MIN_ROUNDS), (400.0, 7)):
        costs = measure(Timed(), seconds, largest_batch=1)
        assert {cost.rounds for cost in costs.values()} == {rounds}


def test_times_overheads_and_rates_follow_the_clock():
    base_model = Timed(second_per_row=1.0)
    bare, guided, slower = measure(base_model, seconds=0.0).values()
    assert [cost.milliseconds_per_step_batch_1 for cost in (bare, guided, slower)] == pytest.approx([2000, 3000, 2100])
    assert [cost.overhead_percent_batch_1 for cost in (bare, guided, slower)] == pytest.approx([0, 50, 5])
    assert [cost.evaluated_images_per_second for cost in (bare, guided)] == pytest.approx([1 / 2, 1 / 3])
    assert {cost.stopped_by for cost in (bare, guided, slower)} == {"time"}
    assert slower.overhead_percent_low == pytest.approx(5) == slower.overhead_percent_high


def test_the_batch_grows_until_nothing_is_gained():
    """A call takes 1 + rows seconds. Images per second: 1/2, 4/5, 16/17, 64/65; guided 1/3, 4/9, 16/33, 64/129."""
    base_model = Timed(second_per_row=1.0)
    bare, guided, slower = measure(base_model).values()
    assert [cost.saturation_batch for cost in (bare, guided, slower)] == [16, 16, 64]
    assert [cost.stopped_by for cost in (bare, guided, slower)] == ["gain below 5 %"] * 3
    assert bare.milliseconds_per_step == pytest.approx(17_000)
    assert bare.evaluated_images_per_second == pytest.approx(16 / 17)
    assert guided.overhead_percent == pytest.approx(100 * 16 / 17)
    assert slower.overhead_percent == pytest.approx(100 * 0.1 / 65)
    assert list(guided.milliseconds_by_batch) == ["1", "4", "16", "64"]


def test_a_method_that_does_not_fit_stays_at_the_batch_before():
    bare, guided, slower = measure(Timed(rows=100)).values()
    assert [cost.saturation_batch for cost in (bare, guided, slower)] == [64, 16, 64]
    assert {cost.stopped_by for cost in (bare, guided, slower)} == {"out of memory"}
    assert guided.overhead_percent == 0


def test_a_device_that_cannot_hold_one_image_is_one_clear_line():
    with pytest.raises(InputError, match="cost of CFG: cpu has too little memory for one image"):
        measure(Timed(rows=1))


def test_the_largest_batch_and_the_time_end_the_growth():
    assert {cost.saturation_batch for cost in measure(Timed(), largest_batch=63).values()} == {16}
    assert {cost.stopped_by for cost in measure(Timed(), largest_batch=63).values()} == {"largest batch"}
    # six turns of 3.1 s at batch 1 and of 3.3 s at batch 4 leave 62 of 100 s, less than four times six of 3.3 s
    short = measure(Timed(second_per_row=0.01), seconds=100.0)
    assert {cost.stopped_by for cost in short.values()} == {"time"}
    assert {cost.saturation_batch for cost in short.values()} == {4}


def test_a_stop_is_heard_before_every_call():
    answers = iter([False] * 4 + [True])
    base_model = Timed()
    with pytest.raises(Stopped, match="while measuring the cost"):
        measure(base_model, should_stop=lambda: next(answers))
    assert len(base_model.calls) == 3 + 4


def test_progress_never_exceeds_the_budget():
    told = []
    measure(Timed(), seconds=500.0, on_progress=lambda *said: told.append(said))
    assert told
    assert all(done <= total == 500 for done, total, _ in told)
    assert [note for *_, note in told][:2] == ["batch 1", "batch 4"]


def test_memory_is_the_peak_of_what_lives_together():
    x = torch.ones(1000)

    def work():
        doubled = x * 2  # 4000 bytes
        both = torch.cat([doubled, doubled])  # 8000 more
        del doubled
        view = both.view(2, 1000)[0]  # none
        return view.add_(1).sum()  # 4 more

    assert peak_memory(work, CPU)[0] == 12_000
    assert peak_memory(x.double, CPU)[0] == 8000


def test_memory_is_that_of_the_saturating_batch():
    """The layer's result is all that the bare model allocates."""
    bare = measure(Timed(second_per_row=1.0))["bare"]
    assert bare.peak_memory_megabytes == pytest.approx(16 * 4 * WIDTH / 1e6)
    assert bare.memory_note.endswith("; one step of 16 images")
    assert "operators returned" in bare.memory_note


@pytest.fixture(scope="module")
def measured(teacher):
    """The real teacher with real adapters, at batch 1 and 4."""
    adapters = {
        "offset": OffsetConfig(hidden_width=16, encoder="shared"),
        "attention": CrossAttentionConfig(hidden_width=16, encoder="shared"),
    }
    built = {name: config.build(teacher.backbone) for name, config in adapters.items()}
    methods = {
        "bare": lambda: nullcontext(teacher),
        "CFG": lambda: nullcontext(GuidedDenoiser(teacher, ClassifierFreeGuidance())),
        **{name: partial(trained.installed, teacher) for name, trained in built.items()},
    }
    return built, measure_costs(Bench(methods, Subjects(teacher), 2.0, TIMESTEPS), 0.0, 4)


def test_the_real_teacher_is_counted(measured):
    costs = measured[1]
    assert [cost.network_evaluations_per_step for cost in costs.values()] == [1, 2, 1, 1]
    assert costs["CFG"].gigaflops_per_step == pytest.approx(2 * costs["bare"].gigaflops_per_step)
    assert all(cost.milliseconds_per_step_batch_1 > 0 for cost in costs.values())
    memory = {name: cost.peak_memory_megabytes for name, cost in costs.items()}
    assert memory["CFG"] > 1.9 * memory["bare"]
    assert memory["bare"] < memory["attention"] < memory["CFG"]


def test_a_rule_that_guides_at_half_of_the_timesteps_costs_half_of_a_pass_more(teacher):
    rule = IntervalGuidance[ClassifierFreeGuidance](
        high=float(noise_level(teacher.scheduler_config, torch.tensor([500.0]))), rule=ClassifierFreeGuidance()
    )
    methods = {"bare": lambda: nullcontext(teacher), "interval": lambda: nullcontext(GuidedDenoiser(teacher, rule))}
    bench = Bench(methods, Subjects(teacher), 2.0, (*TIMESTEPS, 100.0), is_varying=True)
    bare, guided = bench.count("bare"), bench.count("interval")
    assert (bare.evaluations, bare.timed) == (1, {2: 1})
    assert (guided.evaluations, guided.flops) == (pytest.approx(1.6), pytest.approx(1.6 * bare.flops))
    assert guided.timed == {1: 0.4, 3: 0.6}, "one of two steps without guidance, one of three with it"


@pytest.mark.parametrize(
    ("rule", "evaluations", "timed"),
    [
        (GatedGuidance[ClassifierFreeGuidance](rule=ClassifierFreeGuidance()), 1.6, {1: 0.6, 2: 0.0, 4: 0.4}),
        (CachedGuidance[ClassifierFreeGuidance](rule=ClassifierFreeGuidance()), 1.6, {2: 0.6, 3: 0.4}),
        (CachedGuidance[ClassifierFreeGuidance](every=4, rule=ClassifierFreeGuidance()), 1.4, {0: 0.0, 2: 0.6, 4: 0.4}),
    ],
    ids=["gate", "cache of 2", "cache of 4"],
)
def test_a_step_that_goes_on_with_what_an_earlier_one_made_is_timed_behind_it(rule, evaluations, timed):
    """A call takes a second plus one per row: 2 s for a pass, 3 s for two passes."""
    base_model = Timed(second_per_row=1.0)
    sides = {"bare": base_model, "sparing": GuidedDenoiser(base_model, rule)}
    methods = {name: base_model.named(name, denoiser) for name, denoiser in sides.items()}
    bench = Bench(methods, Subjects(base_model), 2.0, (*TIMESTEPS, 100.0), True, clock=base_model.clock)
    counted = bench.count("sparing")
    assert (counted.evaluations, counted.timed) == (pytest.approx(evaluations), pytest.approx(timed))
    cost = measure_costs(bench, 0.0, 1)["sparing"]
    assert cost.milliseconds_per_step_batch_1 == pytest.approx(1000 * (1 + evaluations))
    assert cost.gigaflops_per_step == pytest.approx(evaluations * 2 * WIDTH * WIDTH / 1e9)


class Prepared(Slower):
    """Takes 5 s before the first step, for all of them."""

    def steps(self, timesteps, ask):
        self.base_model.now += 5
        yield from super().steps(timesteps, ask)


def test_a_step_has_its_share_of_what_is_prepared_for_all():
    base_model = Timed()
    methods = {"bare": base_model.named("bare", base_model), "prepared": base_model.named("", Prepared(base_model))}
    bench = Bench(methods, Subjects(base_model), 2.0, TIMESTEPS, clock=base_model.clock)
    bare, prepared = measure_costs(bench, 0.0, 1).values()
    assert bare.milliseconds_per_step_batch_1 == pytest.approx(1000)
    assert prepared.milliseconds_per_step_batch_1 == pytest.approx(1000 + 100 + 5000 / 4)


class Uneven(Slower):
    """Every step has a time and a number of network evaluations of its own."""

    tenths = (0, 10, 20, 30)

    def steps(self, timesteps, ask):
        for tenths, answer in zip(self.tenths, super().steps(timesteps, ask), strict=True):
            yield partial(self.answer, answer, tenths)

    def answer(self, answer, tenths, latents):
        self.base_model.now += tenths / 10
        if tenths == 30:
            answer(latents)
        return answer(latents)


def test_steps_of_equally_many_evaluations_are_timed_by_the_middle_one():
    base_model = Timed()
    methods = {"bare": base_model.named("bare", base_model), "uneven": base_model.named("", Uneven(base_model))}
    bench = Bench(methods, Subjects(base_model), 2.0, TIMESTEPS, True, clock=base_model.clock)
    assert bench.count("uneven").timed == {1: 0.75, 3: 0.25}
    milliseconds = measure_costs(bench, 0.0, 1)["uneven"].milliseconds_per_step_batch_1
    assert milliseconds == pytest.approx(0.75 * (1000 + 1100) + 0.25 * (3000 + 2200))


def test_an_offset_adapters_flops_are_its_matrix_products(measured, teacher):
    """One vector per image and step; every timestep is embedded once more for it, scale and condition once for all."""
    built, costs = measured
    embedder = teacher.network.get_submodule(teacher.backbone.time_embedder).timestep_embedder
    encoder = built["offset"].encoders[0]
    extra = flops_of(built["offset"], embedder) - 3 / 4 * flops_of(encoder.scale, encoder.condition)
    assert 1e9 * (costs["offset"].gigaflops_per_step - costs["bare"].gigaflops_per_step) == pytest.approx(extra)


def flops_of(*parts):
    """Of one row through every linear layer."""
    layers = [m for part in parts for m in part.modules() if isinstance(m, nn.Linear)]
    return sum(2 * m.in_features * m.out_features for m in layers)


def test_plain_data_holds_every_field(measured):
    plain = measured[1]["attention"].as_dict()
    assert plain["milliseconds_by_batch"].keys() == {"1"}
    assert plain.keys() == measured[1]["attention"].__dataclass_fields__.keys()
    assert all(isinstance(value, int | float | str | dict) for value in plain.values())
