"""A method that this package does not know, without hooks or sites: every stage runs with it."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import torch
from pydantic import Field, create_model

import agd_core
from agd_core.methods import AnyMethodConfig, MethodConfig, Trained, adapter_files
from agd_core.models.ask import Ask
from agd_core.models.denoiser import Denoiser, Latents, PerRow, Prediction, rowwise
from agd_core.models.model import BaseModel
from flows.config import PipelineConfig
from flows.presets import load_config
from flows.run import Run
from flows.stages.distill import distill
from flows.workplace import Workplace
from tests.conftest import SMALL


class GainConfig(MethodConfig):
    """A learned gain for every channel of the prediction."""

    about = "Every channel of the prediction has a gain."
    kind: Literal["gain"] = "gain"

    def build(self, backbone, seed=0):
        return Gain(self, backbone.network.config.in_channels)


class Gain(Trained):
    """One factor per channel."""

    def __init__(self, config: MethodConfig, channels: int) -> None:
        super().__init__(config)
        self.gain = torch.nn.Parameter(torch.ones(channels))

    @contextmanager
    def installed(self, model, checkpointing=False):
        yield Amplified(model, self.to(model.device))


@dataclass
class Amplified(Denoiser):
    """The student."""

    base_model: BaseModel
    trained: Gain

    @property
    def network_evaluations(self) -> int:
        return self.base_model.network_evaluations

    def predict(self, latents: Latents, timestep: PerRow, ask: Ask) -> Prediction:
        prediction = self.base_model.predict(latents, timestep, ask)
        return prediction * rowwise(self.trained.gain, prediction[0])


AnyMethod = Annotated[AnyMethodConfig | GainConfig, Field(discriminator="kind")]


class WiderConfig(PipelineConfig):
    """A configuration that takes it."""

    methods: tuple[AnyMethod, ...]


@pytest.fixture
def config(monkeypatch):
    stored = create_model("Stored", __base__=adapter_files._Stored, method=(AnyMethod, ...))
    monkeypatch.setattr(adapter_files, "_Stored", stored)
    small = load_config("fashion-dit", [*SMALL, "sample.curve_steps=[]", "evaluate.measure_cost=true"])
    return WiderConfig(**(dict(small) | {"methods": (GainConfig(),)}))


def test_it_is_trained_sampled_measured_and_published(config, teacher, tmp_path):
    metrics = distill(Run(config, Workplace(tmp_path), teacher), "agd distill").metrics
    (row,) = (row for row in metrics["rows"] if row["name"] == "gain")
    assert (row["method"], row["nfe"], row["adapter_parameters"]) == ("gain", config.sample.steps, 4)
    assert row["paired_mse"] > 0
    (cost,) = (cost for cost in metrics["cost"]["methods"] if cost["name"] == "gain")
    assert cost["network_evaluations_per_step"] == 1
    assert len(metrics["prediction_error"]["points"]["gain"]) == config.sample.steps
    folder = tmp_path / "adapters" / "gain"
    assert "Every channel of the prediction has a gain." in (folder / "README.md").read_text()
    with agd_core.load_student(teacher, folder) as student:
        assert not torch.equal(student.trained.gain, torch.ones(4)), "it has learnt"


def test_a_stock_pipeline_refuses_it_in_one_line(teacher):
    with pytest.raises(agd_core.InputError, match=r"^gain does not work in stock pipelines; "):
        GainConfig().build(teacher.backbone).attach(teacher.network)
