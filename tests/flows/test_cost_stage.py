"""The cost of every method on the real teacher: what is written, and when it is measured anew."""

import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.basics.progress import Stopped
from agd_core.guidance import CachedGuidance, ClassifierFreeGuidance, GatedGuidance, IntervalGuidance
from agd_core.models.schedulers import build_scheduler, noise_level
from flows.machine.device_lease import acquisitions
from flows.run import Run
from flows.stages import cost as stage
from flows.stages.comparison import NO_GUIDANCE, Method, teacher_of
from flows.stages.cost import COSTS, cost, read_cost
from flows.workplace import Workplace
from tests.flows.test_prediction_error_stage import saved_adapter
from tests.leases import CPU

CFG = Method("CFG", "cfg", guidance=ClassifierFreeGuidance())


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("costs")


@pytest.fixture(scope="module")
def methods(teacher, output):
    adapter = saved_adapter(teacher, output, 0.5)
    return [NO_GUIDANCE, CFG, Method("mine", "agd-offset", adapter, 1234)]


@pytest.fixture(scope="module")
def measure(small_config, teacher, methods, output):
    def run(chosen=methods, scale=2.0, lines=None, folder=output, changes=None, **others):
        place = Workplace(folder, announce=(lines if lines is not None else []).append, **others)
        sampled = small_config.sample.model_copy(update={"guidance_scales": (scale,)})
        config = small_config.model_copy(update={"sample": sampled, **(changes or {})})
        return cost(Run(config, place, teacher), chosen, seconds=0.0)

    return run


def test_every_method_is_measured_in_order(measure):
    costs = read_cost(measure())
    rows = costs.pop("methods")
    assert [row["name"] for row in rows] == ["no guidance", "CFG", "mine"]
    assert [row["method"] for row in rows] == ["none", "cfg", "agd-offset"]
    assert [row["network_evaluations_per_step"] for row in rows] == [1, 2, 1]
    assert [row["adapter_parameters"] for row in rows] == [0, 0, 1234]
    assert rows[1]["gigaflops_per_step"] == pytest.approx(2 * rows[0]["gigaflops_per_step"])
    assert rows[0]["gigaflops_per_step"] < rows[2]["gigaflops_per_step"] < rows[1]["gigaflops_per_step"]
    assert rows[0]["overhead_percent"] == 0
    assert all(row["peak_memory_megabytes"] > 0 and row["evaluated_images_per_second"] > 0 for row in rows)


def test_where_it_was_measured_is_named(measure):
    costs = read_cost(measure())
    assert costs["device"].startswith("CPU ")
    assert (costs["threads"], costs["dtype"]) == (1, "float32")
    assert "measure cost" in {entry["what"] for entry in acquisitions(CPU)}


def test_nothing_hangs_on_the_teacher_afterwards(measure, teacher):
    measure()
    assert not any(module._forward_hooks for module in teacher.network.modules())


def test_a_second_call_reuses_and_another_method_measures_all_anew(measure, methods):
    lines = []
    first = measure(lines=lines)
    measure(lines=lines)
    other = measure(methods[:2], lines=lines)
    assert other.key != first.key
    assert ["cached" in line for line in lines][-2:] == [True, False]


def test_scale_device_and_names_are_in_the_key(measure, methods, monkeypatch):
    renamed = [*methods[:2], Method("yours", "agd-offset", methods[2].adapter, 1234)]
    keys = {measure().key, measure(scale=3.0).key, measure(renamed).key}
    monkeypatch.setattr(stage, "describe_device", lambda device: "another machine")
    assert len({*keys, measure().key}) == 4


def test_so_are_the_steps_of_a_rule_that_costs_more_at_some(measure, methods, small_config, teacher):
    rule = IntervalGuidance[ClassifierFreeGuidance](high=2.0, rule=ClassifierFreeGuidance())
    found, expected = {}, []
    for steps in (2, 8):
        sample = small_config.sample.model_copy(update={"steps": steps, "guidance_scales": (2.0,)})
        timesteps = build_scheduler(sample.scheduler, teacher.scheduler_config, steps).timesteps.float()
        expected.append(1 + (noise_level(teacher.scheduler_config, timesteps) <= rule.high).float().mean().item())
        changed = small_config.model_copy(update={"guidance": rule, "sample": sample})
        found[steps] = measure([methods[0], teacher_of(changed)], changes={"guidance": rule, "sample": sample})
    assert found[2].key != found[8].key
    assert [read_cost(each)["methods"][1]["network_evaluations_per_step"] for each in found.values()] == expected
    assert expected[0] != expected[1]


def test_a_rule_that_spares_passes_is_counted_over_all_steps(measure, methods, small_config):
    rules = [
        GatedGuidance[ClassifierFreeGuidance](rule=CFG.guidance),
        CachedGuidance[ClassifierFreeGuidance](every=4, rule=CFG.guidance),
    ]
    sparing = [Method(rule.label, rule.kind, guidance=rule, training_free=True) for rule in rules]
    measured = measure([*methods[:2], *sparing])
    rows = {row["name"]: row for row in read_cost(measured)["methods"]}
    evaluations = [row["network_evaluations_per_step"] for row in rows.values()]
    assert evaluations == [1, 2, 1.5, 1.25]
    one = rows["no guidance"]["gigaflops_per_step"]
    assert [row["gigaflops_per_step"] for row in rows.values()] == pytest.approx([one * each for each in evaluations])
    other = Method(rules[1].label, "guidance-cache", guidance=rules[0], training_free=True)
    assert measure([*methods[:2], sparing[0], other]).key != measured.key


def test_measured_times_are_no_content(measure, tmp_path):
    one, other = measure(), measure(folder=tmp_path)
    assert one.manifest()["measured"] == [COSTS]
    assert one.key == other.key
    assert one.digest == other.digest


def test_a_stop_leaves_nothing_finished(measure, tmp_path):
    with pytest.raises(Stopped):
        measure(folder=tmp_path, should_stop=lambda: True)
    assert not list(tmp_path.rglob(COSTS))


def test_too_little_memory_is_one_line(measure, teacher, tmp_path, monkeypatch):
    def full(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(teacher, "evaluate_network", full)
    with pytest.raises(InputError, match="cost of no guidance: cpu has too little memory for one image"):
        measure(folder=tmp_path)
