"""Training by captured graphs is training: gradients, steps and a resumed run as without them."""

import copy

import pytest
import torch
from torch import nn

from agd_core.pretraining.capturing import Captured

pytestmark = pytest.mark.gpu
STEPS = 3


@pytest.fixture
def network(device):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.LayerNorm(16), nn.Linear(16, 4)).to(device)


def trained(network, call, steps, state=None):
    """The gradients of every step, and the optimiser's state; batch i is the same in every run."""
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    if state:
        optimiser.load_state_dict(copy.deepcopy(state))
    gradients = []
    for step in steps:
        values = torch.randn(5, 8, generator=torch.Generator().manual_seed(step)).to(next(network.parameters()).device)
        call(values).square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return gradients, optimiser.state_dict()


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_steps_have_the_gradients_and_weights_of_eager_ones(network):
    eager = copy.deepcopy(network)
    expected, _ = trained(eager, eager, range(STEPS))
    found, _ = trained(network, Captured(network), range(STEPS))
    close(found, expected)
    close(network.state_dict(), eager.state_dict())


def test_a_resumed_run_equals_an_unbroken_one(network):
    first, again = copy.deepcopy(network), copy.deepcopy(network)
    trained(network, Captured(network), range(2 * STEPS))
    _, state = trained(first, Captured(first), range(STEPS))
    again.load_state_dict(first.state_dict())
    trained(again, Captured(again), range(STEPS, 2 * STEPS), state)
    close(again.state_dict(), network.state_dict())
