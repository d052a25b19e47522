"""A compiled training step is one graph, and what it learns is what the plain one learns."""

from contextlib import nullcontext

import jaxtyping
import pytest
import torch
from pydantic import ValidationError

from agd_core.basics.errors import InputError
from agd_core.methods import Pairs
from agd_core.methods.compiled import compiled
from agd_core.methods.trainer import TrainConfig
from tests.agd_core.methods.examples import EXAMPLES, call_of, model_of, randomised, takes
from tests.soak import short

NETWORKS = ("DiTTransformer2DModel", "UNet2DConditionModel", "SD3Transformer2DModel")
CASES = [(network, kind) for network in NETWORKS for kind in EXAMPLES if takes(kind, network)]


@pytest.fixture
def unchecked(monkeypatch):
    """The suite's checks of shapes are not for `torch.compile` to trace."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def steps(model, method, backend=None, count=3):
    """Losses and the last gradients of calls of equal shapes, at scales and timesteps of their own."""
    trained, losses = randomised(method.build(model.backbone)), []
    speed = compiled(trained.runs_in(model).backbone, backend) if backend else nullcontext()
    with trained.installed(model) as student, speed:
        for step in range(count):
            latents, timestep, ask = call_of(model)
            ask = type(ask)(ask.condition, ask.null, ask.guidance_scale + step)
            trained.zero_grad()
            loss = trained.loss(student, Pairs(latents, timestep - step, ask, torch.zeros_like(latents)))
            loss.backward()
            losses.append(loss.item())
    return losses, [parameter.grad for parameter in trained.parameters()]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch hides it by itself
@pytest.mark.parametrize(("network", "kind"), short(CASES, keep=(0, 3, list(EXAMPLES).index("finetune")), several=True))
def test_one_graph_without_a_break_and_the_same_gradients(network, kind):
    model = model_of(network)
    plain = model.backbone.network
    losses, gradients = steps(model, EXAMPLES[kind])
    torch.compiler.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled_losses, compiled_gradients = steps(model, EXAMPLES[kind], "aot_eager")
    assert model.backbone.network is plain
    assert len(set(losses)) == 3
    assert compiled_losses == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(compiled_gradients, gradients, rtol=1e-4, atol=1e-6)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValidationError, match="compile and activation_checkpointing do not go together"):
        TrainConfig(compile=True, activation_checkpointing=True)


def test_a_machine_without_a_compiler_is_told_so(monkeypatch):
    model = model_of("DiTTransformer2DModel")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match="needs a compiler"), compiled(model.backbone):
        pass
