"""A class of networks that nobody here knows, made known by one file and one line: collected, trained, sampled."""

import json

import diffusers
import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from agd_core.basics.checkpoint import Checkpoint
from agd_core.builtin.miniatures.parts import vae
from agd_core.builtin.miniatures.weights import fill
from agd_core.data.states import GuidedStates
from agd_core.data.subjects import Subjects
from agd_core.data.trajectory import CollectConfig, collect_unit, plan_collection
from agd_core.guidance import GuidedDenoiser
from agd_core.guidance.classifier_free import ClassifierFreeGuidance
from agd_core.methods import OffsetConfig
from agd_core.methods.trainer import TrainConfig, Training
from agd_core.models.ask import Ask
from agd_core.models.backbones import BACKBONES, AdapterSite, Backbone
from agd_core.models.condition import Condition
from agd_core.models.config import BaseModelConfig
from agd_core.models.denoising import denoise
from agd_core.models.doors.doors import DoubledBatch
from agd_core.models.schedulers import build_scheduler
from tests.storage.memory_store import MemoryTrajectoryStore

CPU = torch.device("cpu")
WIDTH = 8


class MixerModel(ModelMixin, ConfigMixin):
    """One token per pixel, told the label and the time, mixed once."""

    @register_to_config
    def __init__(self, in_channels: int = 2, sample_size: int = 4, labels: int = 3, frames: int | None = None):
        super().__init__()
        self.enter, self.mix, self.leave = nn.Linear(in_channels, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)
        self.table, self.clock = nn.Embedding(labels + 1, WIDTH), nn.Linear(1, WIDTH)

    def forward(self, sample, time, label):
        told = self.table(label) + self.clock(time[:, None] / 1000)
        tokens = self.enter(sample.flatten(2).transpose(1, 2)) + told[:, None]
        return self.leave(tokens + self.mix(tokens)).transpose(1, 2).reshape(sample.shape)


class Mixer(Backbone):
    """The one file."""

    class_name = "MixerModel"
    component = "transformer"
    pipelines = ("MixerPipeline",)
    leading_arguments = ("sample", "time", "label")
    door = DoubledBatch(("MixerPipeline",), conditional_half=1)

    def __init__(self, network):
        super().__init__(network)
        self.classes = network.config.labels

    @property
    def sites(self):
        return (AdapterSite("mix", WIDTH),)

    @property
    def embedding_widths(self):
        return WIDTH, WIDTH

    def call(self, latents, timestep, condition):
        return self.network(latents, timestep, condition["class_labels"])

    def condition_of(self, arguments):
        return Condition(class_labels=arguments["label"])

    @classmethod
    def latent_shape(cls, config):
        channels, *sides = super().latent_shape(config)
        return channels, *([config["frames"]] if config["frames"] else []), *sides

    @classmethod
    def empty_condition(cls, config, rows, tokens):
        return Condition(class_labels=torch.empty(rows, dtype=torch.int64))

    def embed_timestep(self, timestep):
        return self.network.clock(timestep[:, None] / 1000)

    def embed_condition(self, condition):
        return self.network.table(condition["class_labels"])[:, None]


@pytest.fixture(params=[None, 3], ids=["images", "videos"])
def model(request, tmp_path, monkeypatch):
    monkeypatch.setattr(diffusers, "MixerModel", MixerModel, raising=False)
    monkeypatch.setitem(BACKBONES, "MixerModel", Mixer)  # the one line
    fill(MixerModel(frames=request.param), "mixer").save_pretrained(tmp_path / "transformer")
    vae("mixer", 2).save_pretrained(tmp_path / "vae")
    diffusers.DDIMScheduler(clip_sample=False).save_pretrained(tmp_path / "scheduler")
    parts = {"transformer": "MixerModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}
    index = {"_class_name": "MixerPipeline"} | {name: ["diffusers", kind] for name, kind in parts.items()}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    return BaseModelConfig(source=str(tmp_path)).build(CPU)


def test_it_is_found_collected_and_trained(model, tmp_path):
    assert (model.class_names, model.pixels) == (("0", "1", "2"), 32)
    assert model.null_condition(2)["class_labels"].tolist() == [3, 3]
    teacher = GuidedDenoiser(model, ClassifierFreeGuidance())
    config = CollectConfig(trajectories=3, steps=3, shard_trajectories=3, guidance_scale_max=8)
    plan = plan_collection(config, Subjects(model), {"test": 1})
    store = MemoryTrajectoryStore(plan)
    with store.write_unit(0) as writer:
        collect_unit(GuidedStates(teacher), model, plan, writer, config)
    adapter = OffsetConfig(hidden_width=4).build(model.backbone)
    settings = TrainConfig(steps=2, batch_size=3, learning_rate=1e-2)
    losses = Training(model, adapter, store, settings).run(Checkpoint(tmp_path / "state.safetensors", "key"))
    assert len(losses) == 2
    assert losses[1] != losses[0] > 0
    ask = Ask(model.class_condition([0, 1]), model.null_condition(2), torch.full((2,), 3.0))
    latents = denoise(teacher, build_scheduler("ddim", model.scheduler_config, 2), ask, (1, 2), model.latent_shape)
    assert latents.shape == (2, *model.latent_shape)
