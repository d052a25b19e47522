"""What sampling asks for and what its clock counts."""

import pytest
import torch

from agd_core.data.subjects import Subjects
from agd_core.evaluation import sampling
from agd_core.evaluation.sampling import SampleConfig, sample_images
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.memory.peak_memory import peak_memory
from flows.presets import load_config

PROMPTS = ("a red bus on a wet street", "two dogs asleep", "a bowl of soup")
CONFIG = SampleConfig(images=4, steps=3, batch_size=2, guidance_scales=(4.0,))
LONG = 1000


@pytest.fixture
def model():
    return load_config("tiny-sd").base_model.build(torch.device("cpu"))


@pytest.fixture
def clock(monkeypatch, model):
    """Seconds that pass where prompts are encoded, images decoded (many) and predictions made (one each)."""
    now = [0]

    def taking(seconds, call):
        def timed(*args):
            now[0] += seconds
            return call(*args)

        return timed

    monkeypatch.setattr(sampling.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(model.encoder, "encode", taking(LONG, model.encoder.encode))
    monkeypatch.setattr(model.encoder, "encode_null", taking(LONG, model.encoder.encode_null))
    monkeypatch.setattr(model, "decode", taking(LONG, model.decode))
    monkeypatch.setattr(model, "evaluate_network", taking(1, model.evaluate_network))
    return now


def test_the_time_of_denoising_holds_neither_encoding_nor_decoding(model, clock):
    samples = sample_images(GuidedDenoiser(model, ClassifierFreeGuidance()), Subjects(model, PROMPTS), CONFIG)
    batches = CONFIG.images // CONFIG.batch_size
    assert samples.denoising_seconds == CONFIG.steps * batches
    assert clock[0] == samples.denoising_seconds + LONG * (2 + batches)


def test_one_sample_set_is_that_of_its_point_whatever_else_is_compared(model):
    config = CONFIG.model_copy(update={"curve_steps": (9,), "sweep_schedulers": ("euler",)})
    alone = config.at(2.0, 3, "ddim")
    assert (alone.guidance_scale, alone.steps, alone.scheduler) == (2.0, 3, "ddim")
    assert alone.identity() == CONFIG.at(2.0, 3, "ddim").identity() != CONFIG.at(2.0, 4, "ddim").identity()


def test_a_sample_set_is_held_once_while_it_is_made(teacher, monkeypatch):
    side, config = 256, SampleConfig(images=64, batch_size=1)
    monkeypatch.setattr(sampling, "denoise", lambda *arguments: torch.zeros(1, *teacher.latent_shape))
    monkeypatch.setattr(type(teacher), "decode", lambda self, latents: torch.zeros(len(latents), 3, side, side))
    subjects = Subjects.of(teacher, (), "")
    peak, _ = peak_memory(lambda: sample_images(teacher, subjects, config), teacher.device)
    assert peak < 1.5 * config.images * 3 * side**2
