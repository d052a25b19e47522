from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from agd_core.basics.checkpoint import Checkpoint
from agd_core.basics.errors import NumericError
from agd_core.basics.progress import Stopped
from agd_core.basics.seeding import generator
from agd_core.methods.offloaded_adam import OffloadedAdam
from agd_core.methods.training_loop import Loop, LoopConfig

STEPS = 8
FUSED = partial(torch.optim.Adam, fused=True)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def loop_of(path, kind, net=None, **config):
    net = net or network()

    def loss_at(step):
        inputs = torch.randn(6, 5, generator=generator(3, step))
        return (net(inputs) - inputs[:, :3].flip(1)).square().mean()

    settings = {"steps": STEPS, "learning_rate": 0.03, "max_gradient_norm": 0.4, **config}
    return Loop(LoopConfig(**settings), {"net": net}, kind(net.parameters(), lr=0.1), loss_at, Checkpoint(path, "run"))


def weights(loop):
    return [p.detach().clone() for p in loop.modules["net"].parameters()]


def moments(loop):
    return {(i, k): v for i, entry in loop.optimizer.state_dict()["state"].items() for k, v in entry.items()}


def assert_equal(a, b):
    assert all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))
    assert moments(a).keys() == moments(b).keys()
    assert all(torch.equal(v, moments(b)[k]) for k, v in moments(a).items())


def stop_after(step):
    polls = iter(range(1, STEPS + 1))
    return lambda: next(polls) == step


def test_every_bit_is_that_of_adam(tmp_path):
    ours, adam = loop_of(tmp_path / "a", OffloadedAdam), loop_of(tmp_path / "b", FUSED)
    before = weights(ours)
    assert ours.run() == adam.run()
    assert not any(torch.equal(x, y) for x, y in zip(before, weights(ours), strict=True))
    assert_equal(ours, adam)


@pytest.mark.parametrize("stop", [1, 3, STEPS - 1])
@pytest.mark.parametrize(("first", "then"), [(OffloadedAdam,) * 2, (FUSED, OffloadedAdam)])
def test_stopped_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop, first, then):
    whole = loop_of(tmp_path / "whole", OffloadedAdam)
    losses = whole.run()
    with pytest.raises(Stopped):
        loop_of(tmp_path / "cut", first).run(should_stop=stop_after(stop))
    resumed = loop_of(tmp_path / "cut", then)
    assert resumed.run() == losses
    assert_equal(resumed, whole)


def test_a_checkpoint_of_offloaded_adam_is_resumed_by_adam(tmp_path):
    whole = loop_of(tmp_path / "whole", FUSED)
    losses = whole.run()
    with pytest.raises(Stopped):
        loop_of(tmp_path / "cut", OffloadedAdam).run(should_stop=stop_after(4))
    resumed = loop_of(tmp_path / "cut", FUSED)
    assert resumed.run() == losses
    assert_equal(resumed, whole)


def test_moments_and_weights_are_not_those_of_the_network(tmp_path):
    loop = loop_of(tmp_path / "a", OffloadedAdam)
    loop.run()
    mine = {p.data_ptr() for p in loop.modules["net"].parameters()}
    kept = [*moments(loop).values(), *loop.optimizer._weights.values()]
    assert {tensor.device.type for tensor in kept} == {"cpu"}
    assert not mine & {tensor.data_ptr() for tensor in kept}


def test_parameters_without_gradients_stay_as_they_are():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = OffloadedAdam([used, unused], lr=0.1)
    used.sum().backward()
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    assert list(optimizer.state_dict()["state"]) == [0]
    optimizer.zero_grad(set_to_none=True)
    assert used.grad is None


@pytest.mark.parametrize("kind", [FUSED, OffloadedAdam])
def test_a_loss_scale_changes_no_bit_where_nothing_underflows(tmp_path, kind):
    plain, scaled = loop_of(tmp_path / "a", kind), loop_of(tmp_path / "b", kind, loss_scale=1024.0)
    assert plain.run() == scaled.run()
    assert_equal(plain, scaled)


@pytest.mark.parametrize(("scale", "moves"), [(1.0, False), (65536.0, True)])
def test_a_loss_scale_saves_gradients_that_float16_cannot_hold(tmp_path, scale, moves):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self):
            return (self.weight.half() * 1e-4).float() * 1e-6

    net = Half()
    config = LoopConfig(steps=1, learning_rate=0.5, loss_scale=scale)
    optimizer = torch.optim.SGD(net.parameters())
    Loop(config, {"net": net}, optimizer, lambda step: net().sum(), Checkpoint(tmp_path / "c", "run")).run()
    assert bool((net.weight.grad != 0).all()) == moves
    if moves:
        torch.testing.assert_close(net.weight.grad, torch.full((4,), 1e-10), rtol=0.02, atol=0)


def test_an_overflowing_scale_stops_before_it_reaches_the_weights(tmp_path):
    net = network()
    before = [p.detach().clone() for p in net.parameters()]
    loop = loop_of(tmp_path / "c", FUSED, net, loss_scale=2.0**127)
    steep = replace(loop, loss_at=lambda step: 1000 * loop.loss_at(step))
    with pytest.raises(NumericError, match="a gradient overflowed at step 0: lower the loss scale"):
        steep.run()
    assert all(torch.equal(x, y) for x, y in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("scale", [0.0, -2.0, 3.0, 1000.0, float("inf"), float("nan")])
def test_a_loss_scale_is_a_power_of_two(scale):
    with pytest.raises(ValueError, match="loss_scale must be a power of two"):
        LoopConfig(steps=1, learning_rate=0.1, loss_scale=scale)


def test_old_gradients_are_gone_before_the_forward_pass(tmp_path):
    loop = loop_of(tmp_path / "c", FUSED)
    seen, loss_at = [], loop.loss_at

    def looking(step):
        seen.append([p.grad for p in loop.modules["net"].parameters()])
        return loss_at(step)

    Loop(loop.config, loop.modules, loop.optimizer, looking, loop.checkpoint).run()
    assert seen == [[None] * 4] * STEPS
