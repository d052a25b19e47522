"""LPIPS with random weights (labelled so): the way there and back is that of the authors' package."""

import lpips
import pytest
import torch
from safetensors.torch import save_file

from agd_core.basics.digest import file_digest
from agd_core.basics.errors import InputError
from agd_core.basics.seeding import generator
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.metrics import METRICS, Measured, Seen
from agd_core.evaluation.metrics.lpips import perceptual_distance
from tests.agd_core.evaluation.metrics.vgg import CONVOLUTIONS, random_vgg16


@pytest.fixture(scope="module")
def state():
    return random_vgg16()


@pytest.fixture(scope="module")
def weights(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "random-vgg16.safetensors"
    save_file(state, path)
    return path


def seen(side, seed, channels=1):
    images = torch.randint(0, 256, (3, side, side, channels), generator=generator("lpips", seed), dtype=torch.uint8)
    return Seen(images, torch.zeros(3, 1, 1, 1), torch.zeros(3, dtype=torch.long))


def score(side, weights, channels=1):
    measured = Measured(seen(side, 0, channels), seen(side, 1, channels), None)
    return METRICS["lpips"].scores(measured, EvaluateConfig(metrics=("lpips",), lpips_weights=str(weights)))["lpips"]


@pytest.fixture(scope="module")
def theirs(state):
    """The package's own network, its backbone filled by hand."""
    with pytest.warns(UserWarning, match=r"pretrained|Arguments other than a weight enum"):
        network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    slices = (network.net.slice1, network.net.slice2, network.net.slice3, network.net.slice4, network.net.slice5)
    layers = {name: layer for part in slices for name, layer in part.named_children()}
    for index in CONVOLUTIONS:
        layers[str(index)].load_state_dict({part: state[f"features.{index}.{part}"] for part in ("weight", "bias")})
    return network


@pytest.mark.parametrize(("side", "channels"), [(32, 1), (16, 3)])
def test_it_is_the_packages_own_distance(side, channels, weights, theirs):
    a, b = (seen(side, seed, channels).images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1) / 255 for seed in (0, 1))
    with torch.no_grad():
        expected = theirs(a, b, normalize=True).flatten()
    found = score(side, weights, channels)
    assert found.value == pytest.approx(float(expected.mean()), rel=1e-5)
    assert found.standard_error == pytest.approx(float(expected.std()) / 3**0.5, rel=1e-4)
    assert found.better == "lower"


def test_the_score_names_size_and_weights(weights):
    method = score(32, weights).method
    assert "32 x 32 as they are" in method
    assert file_digest(weights) in method


def test_a_pytorch_file_gives_the_same_and_equal_images_give_zero(state, weights, tmp_path):
    torch.save(state, tmp_path / "random-vgg16.pth")
    assert score(32, tmp_path / "random-vgg16.pth").value == score(32, weights).value
    images = seen(32, 0).images
    assert perceptual_distance(images, images, weights).abs().max() == 0
    config = EvaluateConfig(metrics=("lpips",), lpips_weights=str(weights))
    assert METRICS["lpips"].scores(Measured(seen(32, 0), seen(32, 0), None), config) == {}


def test_the_global_random_state_is_left_alone(weights):
    before = torch.get_rng_state()
    score(32, weights)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_below_16_pixels_are_refused(weights):
    with pytest.raises(InputError, match="16 x 16 pixels or more; found 8 x 8"):
        score(8, weights)


@pytest.mark.parametrize("damage", ["missing", "text", "other network"])
def test_other_files_are_refused_in_one_line(damage, state, tmp_path):
    path = tmp_path / "vgg.safetensors"
    if damage == "text":
        path.write_text("no weights")
    elif damage == "other network":
        save_file({"features.0.weight": state["features.0.weight"]}, path)
    with pytest.raises(InputError, match=r"evaluate.lpips_weights .*VGG16") as refused:
        score(32, path)
    assert "\n" not in str(refused.value)


def test_a_missing_package_is_named_with_its_extra(weights, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(InputError, match=r"lpips needs the package lpips; pip install 'agd-pipeline\[metrics\]'"):
        score(32, weights)


def test_without_weights_there_is_no_score():
    assert METRICS["lpips"].scores(Measured(seen(32, 0), seen(32, 1), None), EvaluateConfig()) == {}
