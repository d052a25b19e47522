import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.errors import NumericError
from agd_core.basics.progress import Stopped
from agd_core.basics.seeding import generator
from agd_core.methods.training_loop import Loop, LoopConfig, warmup_cosine

STEPS = 6


def make_loop(path, loss_of=lambda step, loss: loss, **config):
    torch.manual_seed(0)
    net, ema = nn.Linear(4, 4), nn.Linear(4, 4)

    def loss_at(step):
        inputs = torch.randn(8, 4, generator=generator(1, step))
        return loss_of(step, (net(inputs) - inputs.flip(1)).square().mean())

    def update_ema(step):
        for average, parameter in zip(ema.parameters(), net.parameters(), strict=True):
            average.data.lerp_(parameter.data, 0.1 * (step + 1))

    return Loop(
        LoopConfig(**{"steps": STEPS, "learning_rate": 0.05, **config}),
        {"net": net, "ema": ema},
        torch.optim.AdamW(net.parameters()),
        loss_at,
        Checkpoint(path / "checkpoint.safetensors", "digest"),
        update_ema,
    )


def stop_after(step):
    polls = iter(range(1, STEPS + 1))
    return lambda: next(polls) == step


def outcome(loop):
    states = {name: module.state_dict() for name, module in loop.modules.items()}
    states |= loop.optimizer.state_dict()["state"]
    return {(name, key): tensor for name, state in states.items() for key, tensor in state.items()}


def assert_same_outcome(loop, other):
    a, b = outcome(loop), outcome(other)
    assert a.keys() == b.keys()
    for key, tensor in a.items():
        assert torch.equal(tensor, b[key]), key


@pytest.mark.parametrize("stop", range(1, STEPS + 1))
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop):
    whole = make_loop(tmp_path / "whole")
    losses = whole.run()
    with pytest.raises(Stopped, match=f"after step {stop} of {STEPS}"):
        make_loop(tmp_path / "cut").run(should_stop=stop_after(stop))
    seen = []
    resumed = make_loop(tmp_path / "cut", lambda step, loss: seen.append(step) or loss)
    assert resumed.run() == losses
    assert seen == list(range(stop, STEPS))
    assert_same_outcome(resumed, whole)


def test_stopped_after_every_step_still_ends_the_same(tmp_path):
    whole = make_loop(tmp_path / "whole")
    losses = whole.run()
    for _ in range(STEPS):
        with pytest.raises(Stopped):
            make_loop(tmp_path / "cut").run(should_stop=lambda: True)
    resumed = make_loop(tmp_path / "cut")
    assert resumed.run() == losses
    assert_same_outcome(resumed, whole)


def test_a_crash_loses_only_the_steps_since_the_last_checkpoint(tmp_path):
    def crash_at_three(step, loss):
        if step == 3:
            raise RuntimeError("crash")
        return loss

    whole, seen = make_loop(tmp_path / "whole"), []
    losses = whole.run()
    with pytest.raises(RuntimeError, match="crash"):
        make_loop(tmp_path / "cut", crash_at_three, checkpoint_seconds=-1.0).run()
    resumed = make_loop(tmp_path / "cut", lambda step, loss: seen.append(step) or loss)
    assert resumed.run() == losses
    assert seen == [3, 4, 5]
    assert_same_outcome(resumed, whole)


def test_training_lowers_the_loss_and_reports_every_step(tmp_path):
    reports = []
    losses = make_loop(tmp_path, steps=80).run(on_progress=lambda *report: reports.append(report))
    assert len(losses) == 80
    assert losses[-1] < 0.3 * losses[0]
    assert [report[:2] for report in reports] == [(step, 80) for step in range(1, 81)]
    assert reports[0][2] == f"loss {losses[0]:.4f}"


def test_the_next_step_is_made_ready_while_this_one_runs(tmp_path):
    loop, seen = make_loop(tmp_path, steps=2), []

    def loss_at(step):
        seen.append(("loss", step))
        return loop.loss_at(step)

    told = replace(loop, loss_at=loss_at, meanwhile=lambda step: seen.append(("ready", step)))
    replace(told, after_step=lambda step: seen.append(("after", step))).run()
    assert seen == [("loss", 0), ("ready", 1), ("after", 0), ("loss", 1), ("after", 1)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights(tmp_path, value):
    loop, before = make_loop(tmp_path, lambda step, loss: loss * value), make_loop(tmp_path)
    with pytest.raises(NumericError, match=f"loss is {value} at step 0"):
        loop.run()
    assert_same_outcome(loop, before)
    assert not loop.checkpoint.path.exists()


def test_a_late_nan_keeps_the_last_good_checkpoint(tmp_path):
    loop = make_loop(tmp_path, lambda step, loss: loss * (math.nan if step == 4 else 1), checkpoint_seconds=-1.0)
    with pytest.raises(NumericError, match="at step 4"):
        loop.run()
    fresh = make_loop(tmp_path)
    assert fresh.checkpoint.load(fresh.modules, fresh.optimizer)[0] == 4
    assert_same_outcome(fresh, loop)


def test_after_every_step_its_new_weights_are_shown(tmp_path):
    loop, seen = make_loop(tmp_path), []
    weight = loop.modules["net"].weight
    replace(loop, after_step=lambda step: seen.append((step, weight.detach().clone()))).run()
    assert [step for step, _ in seen] == list(range(STEPS))
    assert not torch.equal(seen[0][1], make_loop(tmp_path / "fresh").modules["net"].weight)
    assert torch.equal(seen[-1][1], weight)


def test_the_gradient_norm_is_bounded_over_all_parameters(tmp_path):
    weights = nn.Linear(2, 1, bias=True)
    before = torch.cat([p.detach().clone().flatten() for p in weights.parameters()])
    loop = Loop(
        LoopConfig(steps=1, learning_rate=1.0, max_gradient_norm=0.5),
        {"net": weights},
        torch.optim.SGD(weights.parameters()),
        lambda step: 1000 * weights(torch.ones(1, 2)).sum(),
        Checkpoint(tmp_path / "c.safetensors", "digest"),
    )
    loop.run()
    after = torch.cat([p.detach().flatten() for p in weights.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.5, rel=1e-5)


def test_the_optimizer_gets_the_scheduled_learning_rate(tmp_path):
    rates, holder = [], {}
    holder["loop"] = make_loop(
        tmp_path, lambda step, loss: rates.append(holder["loop"].optimizer.param_groups[0]["lr"]) or loss
    )
    holder["loop"].run()
    assert rates == [0.05 * warmup_cosine(step, STEPS, 0.1) for step in range(STEPS)]


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (40, 0.75), (55, 0.5), (70, 0.25), (100, 0.0)]
)
def test_warm_up_is_linear_then_cosine(step, factor):
    assert warmup_cosine(step, 100, 0.1) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(("step", "factor"), [(10, 1.0), (55, 0.6), (100, 0.2)])
def test_cosine_ends_at_the_floor(step, factor):
    assert warmup_cosine(step, 100, 0.1, floor=0.2) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(("steps", "fraction"), [(1, 0.1), (1, 0.0), (3, 0.0), (2, 1.0), (7, 1.0)])
def test_short_runs_have_a_positive_rate_at_every_step(steps, fraction):
    factors = [warmup_cosine(step, steps, fraction) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1
