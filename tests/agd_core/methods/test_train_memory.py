"""Settings of training that save memory change nothing of what is learnt."""

import numpy as np
import pytest
import torch

from agd_core.basics.checkpoint import Checkpoint
from agd_core.data.states import GuidedStates
from agd_core.data.subjects import Subjects
from agd_core.data.trajectory import CollectConfig, collect_unit, plan_collection
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.methods import CrossAttentionConfig
from agd_core.methods.trainer import TrainConfig, Training
from agd_core.models.config import BaseModelConfig
from tests.storage.memory_store import MemoryTrajectoryStore

CPU = torch.device("cpu")
PROMPTS = ("a red bus on a wet street", "two dogs asleep")
MODELS = {
    "sdxl": lambda dtype: BaseModelConfig(source="builtin:tiny-sdxl", dtype=dtype).build(CPU),
    "dit": lambda dtype: BaseModelConfig(source="builtin:tiny-dit", dtype=dtype).build(CPU),
}


def collected(model):
    subjects = Subjects(model, () if model.class_names else PROMPTS)
    config = CollectConfig(trajectories=4, steps=3, shard_trajectories=4, guidance_scale_max=8)
    plan = plan_collection(config, subjects, {"test": 1})
    store = MemoryTrajectoryStore(plan)
    with store.write_unit(0) as writer:
        collect_unit(GuidedStates(GuidedDenoiser(model, ClassifierFreeGuidance())), model, plan, writer, config)
    return store


def train(model, store, folder, **settings):
    adapter = CrossAttentionConfig(hidden_width=8).build(model.backbone)
    config = TrainConfig(steps=3, batch_size=4, learning_rate=1e-2, **settings)
    losses = Training(model, adapter, store, config).run(Checkpoint(folder / "state.safetensors", "key"))
    return losses, torch.cat([parameter.detach().flatten() for parameter in adapter.parameters()])


@pytest.fixture(scope="module", params=MODELS)
def model_and_store(request):
    model = MODELS[request.param]("float32")
    return model, collected(model)


@pytest.mark.parametrize(
    "settings",
    [{"activation_checkpointing": True}, {"optimizer_memory": "offloaded"}],
    ids=["checkpointing", "offload"],
)
def test_the_same_adapter_comes_out(model_and_store, tmp_path, settings):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    losses, weights = train(*model_and_store, tmp_path / "a")
    saving_losses, saving_weights = train(*model_and_store, tmp_path / "b", **settings)
    assert saving_losses == pytest.approx(losses, rel=1e-6)
    assert torch.allclose(weights, saving_weights, atol=1e-6)
    assert losses[-1] != losses[0]


def test_training_neither_asks_the_text_encoders_nor_the_vae(tmp_path):
    store = collected(MODELS["sdxl"]("float32"))
    model = MODELS["sdxl"]("float32")
    train(model, store, tmp_path)
    assert "_pipe" not in vars(model.encoder)
    assert "vae" not in vars(model.autoencoder)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_base_in_half_precision_trains_adapters_in_float32(model_and_store, tmp_path, dtype):
    _, store = model_and_store
    name = "dit" if store.plan.trajectories[0].prompt is None else "sdxl"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    losses, weights = train(*model_and_store, tmp_path / "a")
    half_losses, half_weights = train(MODELS[name](dtype), store, tmp_path / "b")
    assert half_weights.dtype is torch.float32
    assert np.allclose(half_losses, losses, rtol=0.1)
    assert half_weights.isfinite().all()
    assert not torch.equal(weights, half_weights)
