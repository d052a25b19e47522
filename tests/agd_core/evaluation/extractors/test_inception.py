"""Inception v3 with RANDOM weights: the standard file is 91 MB and not shipped, the arithmetic is the same."""

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from safetensors.torch import save_file
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

from agd_core.basics.digest import file_digest
from agd_core.evaluation.extractors import open_extractor
from agd_core.evaluation.extractors.inception import STANDARD_FILE, InceptionFeatures
from tests.agd_core.evaluation.extractors.examples import write_random_inception

OPTIONS = {
    "isc_splits": 2,
    "kid_subsets": 3,
    "kid_subset_size": 6,
    "prc_neighborhood": 2,
    "save_cpu_ram": True,
    "verbose": False,
}


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    return write_random_inception(tmp_path_factory.mktemp("inception"))


@pytest.fixture(scope="module")
def extractor(random_weights, cpu):
    return open_extractor("inception-v3", str(random_weights), None, cpu)


@pytest.fixture(scope="module")
def folders(cuttings, tmp_path_factory):
    """Two sets of eight images, as PNGs."""
    root = tmp_path_factory.mktemp("images")
    for name, images in (("made", cuttings[:8]), ("real", cuttings[8:16].flip(1))):
        (root / name).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image.numpy()).save(root / name / f"{index:02d}.png")
    return root


def read(folder) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(Image.open(path))) for path in sorted(folder.iterdir())])


def test_all_metrics_equal_torch_fidelitys_own_call(extractor, random_weights, folders):
    theirs = torch_fidelity.calculate_metrics(
        input1=str(folders / "made"),
        input2=str(folders / "real"),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(random_weights),
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        **OPTIONS,
    )
    made, real = extractor.extract(read(folders / "made")), extractor.extract(read(folders / "real"))
    statistics = [metric_fid.fid_features_to_statistics(x.features) for x in (made, real)]
    ours = (
        metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
        | metric_kid.kid_features_to_metric(made.features, real.features, **OPTIONS)
        | metric_prc.prc_features_to_metric(made.features, real.features, **OPTIONS)
        | metric_isc.isc_features_to_metric(made.logits, OPTIONS["isc_splits"])
    )
    assert set(ours) == set(theirs)
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours["frechet_inception_distance"] > 1e-3
    assert ours["inception_score_mean"] > 1 + 1e-4


def test_other_than_the_standard_weights_do_not_make_a_fid(extractor, random_weights):
    found = file_digest(random_weights)
    assert extractor.identity() == found
    assert extractor.distance_name == f"FD (Inception v3, weights {found[:8]})"


def test_the_standard_weights_make_the_fid(random_weights, cpu, monkeypatch):
    """The standard file is not here, so the random file's sum stands in for its sum."""
    monkeypatch.setattr("agd_core.evaluation.extractors.inception.STANDARD_SHA256", file_digest(random_weights)[:8])
    assert InceptionFeatures(random_weights, cpu).distance_name == "FID"


def test_the_cache_of_torch_hub_is_found(random_weights, cpu, tmp_path, monkeypatch):
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / STANDARD_FILE).symlink_to(random_weights)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert InceptionFeatures(None, cpu).identity() == file_digest(random_weights)


def test_without_weights_it_says_where_to_put_them(cpu, tmp_path, monkeypatch, one_line):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    message = one_line(InceptionFeatures, None, cpu)
    assert STANDARD_FILE in message
    assert str(tmp_path / "hub" / "checkpoints") in message


def test_safetensors_give_the_same_network(extractor, random_weights, cpu, tmp_path):
    save_file(torch.load(random_weights, weights_only=True), tmp_path / "random-weights.safetensors")
    other = InceptionFeatures(tmp_path / "random-weights.safetensors", cpu).model.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in extractor.model.state_dict().items())


def test_a_pickle_with_code_is_refused_and_never_executed(trap, cpu, one_line):
    path, marker = trap
    assert str(path) in one_line(InceptionFeatures, path, cpu)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 half an archive"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_files_are_refused(content, suffix, cpu, tmp_path, one_line):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert str(path) in one_line(InceptionFeatures, path, cpu)


@pytest.mark.parametrize("state", [[1, 2], {"step": 3}, {"fc.weight": torch.zeros(2, 2)}])
def test_files_of_something_else_are_refused(state, cpu, tmp_path, one_line):
    torch.save(state, tmp_path / "other.pth")
    assert str(tmp_path / "other.pth") in one_line(InceptionFeatures, tmp_path / "other.pth", cpu)


def test_a_missing_file_is_refused(cpu, tmp_path, one_line):
    assert "No such file" in one_line(InceptionFeatures, tmp_path / "absent.pth", cpu)
