"""What holds for every feature extractor; a new one needs an example in `examples.py`."""

import pytest
import torch

from agd_core.evaluation.extractors import EXTRACTORS, open_extractor
from tests.agd_core.evaluation.extractors.examples import EXAMPLES


def test_every_extractor_has_an_example():
    assert set(EXAMPLES) == set(EXTRACTORS)


@pytest.fixture(scope="module", params=EXTRACTORS)
def opened(request, cpu, cuttings, tmp_path_factory):
    """(the extractor, the file or folder of its weights, images for it)"""
    example = EXAMPLES[request.param]
    weights = example.write(tmp_path_factory.mktemp("weights"))
    images = cuttings[: example.images]
    images = images[:, :32, :, :1].contiguous() if example.grey else images
    return open_extractor(request.param, weights and str(weights), None, cpu), weights, images


def test_features_do_not_depend_on_how_many_images_are_given(opened):
    extractor, _, images = opened
    whole = extractor.extract(images)
    for sizes in ([1, len(images) - 1], [len(images) - 1, 1]):
        parts = [extractor.extract(part) for part in torch.split(images, sizes)]
        assert torch.equal(torch.cat([part.features for part in parts]), whole.features)
        assert whole.logits is None or torch.equal(torch.cat([part.logits for part in parts]), whole.logits)


def test_every_image_has_features_of_its_own(opened):
    extractor, _, images = opened
    found = extractor.extract(images)
    assert found.features.shape == (len(images), extractor.width)
    assert found.features.isfinite().all()
    assert len(found.features.unique(dim=0)) == len(images)
    assert found.features.device.type == "cpu"


def test_a_head_has_a_logit_for_each_class_that_it_names(opened):
    extractor, _, images = opened
    if extractor.class_names:
        assert extractor.extract(images[:2]).logits.shape == (2, len(extractor.class_names))


def test_the_same_weights_are_the_same_extractor(opened, cpu):
    extractor, weights, images = opened
    again = open_extractor(extractor.name, weights and str(weights), extractor.identity()[:8], cpu)
    assert again.identity() == extractor.identity()
    assert len(extractor.identity()) == 64
    assert torch.equal(again.extract(images[:2]).features, extractor.extract(images[:2]).features)


def test_it_says_in_words_what_it_is(opened):
    extractor, _, _ = opened
    assert extractor.name in EXTRACTORS
    assert extractor.distance_name
    assert extractor.resize


def test_images_of_other_channels_are_refused_in_one_line(opened, one_line):
    extractor, _, images = opened
    assert "4" in one_line(extractor.extract, images[:2, :, :, :1].repeat(1, 1, 1, 4))
