"""Scores against torch-fidelity called directly on PNG folders of the same images, with the shipped classifier."""

import dataclasses

import pytest
import torch
import torch_fidelity
from PIL import Image
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.extractors.fashion_classifier import FashionFeatures
from agd_core.evaluation.metrics import METRICS, FeatureStatistics, Measured, Reference, Seen
from tests.real_images import COUNT, real_images

SAMPLES = COUNT
KERNEL_ROUNDING = 5e-7
"""KID is a small difference of kernel means of 1.7, which NumPy sums in float32, in an order that alignment decides."""
CONFIG = EvaluateConfig(kid_subsets=5, kid_subset_size=100, distance_subsets=20, seed=3)


class ClassifierForFidelity(FeatureExtractorBase):
    """The shipped classifier as torch-fidelity wants it: uint8 [B, 3, H, W] in, a tuple of features out."""

    def __init__(self, name, features_list, **_):
        super().__init__(name, features_list)
        self.extractor = FashionFeatures(None, torch.device("cpu"))

    @staticmethod
    def get_provided_features_list():
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return {"isc": "logits"}.get(metric, "features")

    @staticmethod
    def can_be_compiled():
        return False

    def forward(self, images):
        found = self.extractor.extract(images[:, :1].permute(0, 2, 3, 1))
        return tuple({"features": found.features, "logits": found.logits}[name] for name in self.features_list)


@pytest.fixture(scope="module")
def images():
    """Real test images, made a little darker, and real training images."""
    test, labels = real_images("test")
    return (test.float() * 0.9).round().to(torch.uint8), labels, real_images("train")[0]


@pytest.fixture(scope="module")
def measured(images):
    samples, labels, real = images
    extractor = FashionFeatures(None, torch.device("cpu"))
    found, of_real = extractor.extract(samples), extractor.extract(real).features
    seen = Seen(samples, torch.zeros(SAMPLES, 1, 1, 1), labels, found.features, found.logits)
    return Measured(seen, None, Reference(FeatureStatistics.of(of_real), of_real, "300 real images"))


@pytest.fixture(scope="module")
def theirs(images, tmp_path_factory):
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

    folders = [tmp_path_factory.mktemp(name) for name in ("samples", "real")]
    for folder, pictures in zip(folders, (images[0], images[2]), strict=True):
        for index, picture in enumerate(pictures):
            Image.fromarray(picture[:, :, 0].numpy()).save(folder / f"{index:04d}.png")
    name = "agd-fashion-classifier"
    if name not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(name, ClassifierForFidelity)
    return torch_fidelity.calculate_metrics(
        input1=str(folders[0]), input2=str(folders[1]), feature_extractor=name, cuda=False, cache=False, verbose=False,
        save_cpu_ram=True,  # no loader processes: a fork of a test process that Prefect's threads run in may fail
        fid=True, kid=True, isc=True, prc=True, kid_subsets=5, kid_subset_size=100, rng_seed=CONFIG.seed,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("metric", "score", "key"),
    [
        ("frechet", "fd", "frechet_inception_distance"),
        ("kid", "kid", "kernel_inception_distance_mean"),
        ("inception-score", "inception_score", "inception_score_mean"),
        ("precision-recall", "precision", "precision"),
        ("precision-recall", "recall", "recall"),
    ],
)
def test_it_equals_torch_fidelity_on_the_written_images(metric, score, key, measured, theirs):
    rounding = KERNEL_ROUNDING if metric == "kid" else 0.0
    assert METRICS[metric].scores(measured, CONFIG)[score].value == pytest.approx(theirs[key], rel=1e-6, abs=rounding)


@pytest.mark.parametrize("metric", ["kid", "inception-score", "precision-recall"])
def test_the_seed_decides_and_nothing_is_printed(metric, measured, capfd):
    assert METRICS[metric].scores(measured, CONFIG) == METRICS[metric].scores(measured, CONFIG)
    assert capfd.readouterr() == ("", "")


def test_another_seed_takes_other_subsets(measured):
    other = CONFIG.model_copy(update={"seed": 4})
    assert METRICS["kid"].scores(measured, CONFIG)["kid"].value != METRICS["kid"].scores(measured, other)["kid"].value


@pytest.mark.parametrize("metric", ["kid", "precision-recall"])
def test_without_real_images_there_is_no_score(metric, measured):
    assert METRICS[metric].scores(dataclasses.replace(measured, reference=None), CONFIG) == {}


def test_without_a_head_there_is_no_inception_score(measured):
    blind = dataclasses.replace(measured.samples, logits=None)
    assert METRICS["inception-score"].scores(dataclasses.replace(measured, samples=blind), CONFIG) == {}


def test_precision_takes_as_many_real_images_as_there_are_samples(measured):
    seen = measured.samples
    few = Seen(seen.images[:50], seen.latents[:50], seen.labels[:50], seen.features[:50])
    scores = METRICS["precision-recall"].scores(dataclasses.replace(measured, samples=few), CONFIG)
    assert "against 50 real images" in scores["precision"].method


def test_subsets_are_never_larger_than_there_are_images(measured):
    large = CONFIG.model_copy(update={"kid_subset_size": 1000})
    assert "5 subsets of 300 images" in METRICS["kid"].scores(measured, large)["kid"].method
