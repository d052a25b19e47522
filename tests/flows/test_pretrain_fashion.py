"""Retraining the built-in world, in miniature: same code, 192 synthetic images in the real file format, one epoch."""

import gzip
import json
import struct

import numpy as np
import pytest
import torch
from diffusers import DiTPipeline

from agd_core.basics.progress import Stopped
from agd_core.builtin.fashion_mnist import load_fashion_mnist
from agd_core.evaluation.extractors import FashionFeatures
from agd_core.models.config import BaseModelConfig
from agd_core.pretraining.fashion.autoencoder import AutoencoderRecipe
from agd_core.pretraining.fashion.classifier import ClassifierRecipe
from agd_core.pretraining.fashion.transformer import TransformerRecipe
from flows.machine.device_lease import acquisitions
from flows.reference import read_reference
from flows.stages.pretrain_fashion import FashionRecipe, pretrain_fashion
from flows.workplace import Workplace

RECIPE = FashionRecipe(
    classifier=ClassifierRecipe(epochs=1, batch_size=64),
    autoencoder=AutoencoderRecipe(epochs=1, batch_size=64),
    transformer=TransformerRecipe(epochs=1, batch_size=64),
)


def write_idx(path, magic, array):
    with gzip.open(path, "wb") as file:
        file.write(struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 192), ("t10k", 50)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8) + labels[:, None, None] * np.uint8(18)
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 2051, images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 2049, labels)
    return folder


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("straight")
    return output, pretrain_fashion(data, Workplace(output), RECIPE)


def weights(output):
    paths = sorted(path for path in output.glob("fashion-*/**/*") if path.is_file())
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in paths}


def test_it_leaves_a_stock_pipeline_and_an_extractor(straight):
    output, result = straight
    pipeline = DiTPipeline.from_pretrained(output / "fashion-dit")
    assert pipeline.get_label_ids(["Bag"]) == [8]
    assert pipeline.transformer.dtype == torch.float32
    model = BaseModelConfig(source=str(output / "fashion-dit")).build(torch.device("cpu"))
    assert len(model.class_names) == 10
    assert (output / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((output / "pretrain.json").read_text()) == result["measured"]
    assert set(result["measured"]) == {"classifier_test_accuracy", "vae_mse", "vae_fd"}


def test_the_extractor_brings_the_real_images_as_it_sees_them(straight, data):
    output, _ = straight
    folder = output / "fashion-classifier"
    extractor = FashionFeatures(folder, torch.device("cpu"))
    pixels, _ = load_fashion_mnist("train", data)
    features = extractor.extract(pixels.permute(0, 2, 3, 1)).features
    shipped = extractor.shipped_reference()
    assert shipped.statistics.samples == 192
    torch.testing.assert_close(shipped.statistics.mean, features.double().mean(dim=0))
    torch.testing.assert_close(shipped.statistics.covariance, features.double().T.cov())
    torch.testing.assert_close(shipped.features, features.half().float(), rtol=0, atol=0)
    assert sorted(path.name for path in folder.iterdir()) == ["classifier.safetensors", "train_reference.safetensors"]
    assert read_reference(folder / "train_reference.safetensors", extractor).identity() == shipped.identity()


def test_interrupted_anywhere_it_resumes_to_the_same_files(straight, data, tmp_path):
    """Stops once in each of the three trainings (3 steps each)."""
    for polls in ([False, True], [True], [False, False, True]):
        answers = iter(polls)
        stopped = Workplace(tmp_path, should_stop=lambda answers=answers: next(answers, False))
        with pytest.raises(Stopped):
            pretrain_fashion(data, stopped, RECIPE)
    pretrain_fashion(data, Workplace(tmp_path), RECIPE)
    assert weights(tmp_path) == weights(straight[0])


def test_running_again_trains_nothing(straight, data):
    lines = []
    pretrain_fashion(data, Workplace(straight[0], announce=lines.append), RECIPE)
    assert [line.partition(",")[0] for line in lines] == [
        f"{s}: cached" for s in ("classifier", "autoencoder", "transformer")
    ]


def test_it_computes_on_the_cpu_whatever_device_is_offered(straight, data, tmp_path, monkeypatch):
    monkeypatch.setenv("AGD_LEASE_FOLDER", str(tmp_path / "leases"))
    offered = torch.device("cuda")
    pretrain_fashion(data, Workplace(straight[0], offered), RECIPE)
    assert [path.name for path in (tmp_path / "leases").iterdir()] == ["cpu.jsonl"]
    held = [entry["what"] for entry in acquisitions(torch.device("cpu")) if entry["event"] == "acquired"]
    assert held == ["measure the classifier", "measure the autoencoder"]


def test_other_images_are_another_run(straight, data, tmp_path):
    output, _ = straight
    before = set((output / "artefacts").iterdir())
    folder = tmp_path / "other"
    folder.mkdir()
    for path in data.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    images = np.zeros((192, 28, 28), np.uint8)
    write_idx(folder / "train-images-idx3-ubyte.gz", 2051, images)
    with pytest.raises(Stopped):
        pretrain_fashion(folder, Workplace(output, should_stop=lambda: True), RECIPE)
    assert set((output / "artefacts").iterdir()) > before
    pretrain_fashion(data, Workplace(output), RECIPE)
