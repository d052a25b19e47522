"""DINOv2 with a tiny configuration and RANDOM weights."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from agd_core.evaluation.extractors import open_extractor
from tests.agd_core.evaluation.extractors.examples import write_tiny_dinov2

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "dinov2")


def opened(folder):
    return open_extractor("dinov2", str(folder), None, torch.device("cpu"))


def test_features_are_the_class_token_of_the_picture_that_pillow_resized(folder, photo):
    extractor = opened(folder)
    image = Image.fromarray(photo.numpy()).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = (torch.from_numpy(np.array(image)) / 255 - MEAN) / STD
    with torch.inference_mode():
        output = transformers.Dinov2Model.from_pretrained(folder)(pixel_values=pixels.permute(2, 0, 1)[None])
    theirs = output.last_hidden_state[:, 0]
    ours = extractor.extract(photo[None])
    assert ours.logits is None
    assert (ours.features - theirs).norm() / theirs.norm() < 2e-3


def test_identity_follows_weights_and_settings(folder, copy):
    before = opened(folder).identity()
    assert opened(copy).identity() == before
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.1}))
    assert opened(copy).identity() != before


def test_no_folder_is_refused(one_line):
    assert "extractor_weights" in one_line(open_extractor, "dinov2", None, None, torch.device("cpu"))


def test_a_folder_of_something_else_is_refused(tmp_path, one_line):
    assert str(tmp_path / "config.json") in one_line(opened, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert "holds a model of type 'clip', not 'dinov2'" in one_line(opened, tmp_path)


def test_pickled_weights_are_refused(copy, one_line):
    """The right weights, but as a pickle."""
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    assert "cannot load Dinov2Model" in one_line(opened, copy)


def test_missing_weights_are_refused(copy, one_line):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert "weights missing" in one_line(opened, copy)


def test_damaged_weights_are_refused(copy, one_line):
    (copy / "model.safetensors").write_bytes(b"no weights")
    assert "cannot load Dinov2Model" in one_line(opened, copy)
