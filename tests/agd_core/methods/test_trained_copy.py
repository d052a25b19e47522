"""A method may train a copy of the network: the base is frozen, what is its own it unfreezes."""

from contextlib import contextmanager
from copy import deepcopy
from typing import Literal

import torch

from agd_core.basics.checkpoint import Checkpoint
from agd_core.methods import MethodConfig, Trained
from agd_core.methods.trainer import TrainConfig, Training
from tests.agd_core.methods.examples import Alone, call_of, model_of
from tests.agd_core.methods.test_train_memory import collected


class CopyConfig(MethodConfig):
    """Full fine-tuning at one guidance scale."""

    about = "The whole network is trained."
    kind: Literal["copy"] = "copy"

    def build(self, backbone, seed=0):
        return Copy(self, backbone)


class Copy(Trained):
    """A network of its own."""

    def __init__(self, config, backbone):
        super().__init__(config)
        self.network = deepcopy(backbone.network).requires_grad_(True)
        self.backbone = type(backbone)(self.network)
        self.channels = backbone.network.config.in_channels

    @contextmanager
    def installed(self, model, checkpointing=False):
        yield Alone(self.predict)

    def predict(self, latents, timestep, ask):
        return self.backbone.call(latents, timestep, ask.condition)[:, : self.channels]


def test_a_copy_of_the_network_is_trained_and_the_base_is_left_alone(tmp_path):
    model = model_of("DiTTransformer2DModel")
    latents, timestep, ask = call_of(model)
    bare, trained = model.predict(latents, timestep, ask), CopyConfig().build(model.backbone)
    config = TrainConfig(steps=6, batch_size=4, learning_rate=1e-3)
    losses = Training(model, trained, collected(model), config).run(Checkpoint(tmp_path / "state.safetensors", "key"))
    assert losses[-1] < losses[0]
    assert trained.parameter_count() == model.backbone.parameters
    assert torch.equal(model.predict(latents, timestep, ask), bare)
    assert not torch.allclose(trained.predict(latents, timestep, ask), bare, atol=1e-4)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.network.parameters())
