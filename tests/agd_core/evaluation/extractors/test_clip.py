"""CLIP with a tiny configuration, a tokenizer of single letters and RANDOM weights."""

import json
import shutil
import string

import pytest
import torch
import transformers
from PIL import Image
from torch.nn.functional import cosine_similarity

from agd_core.evaluation.extractors import Extracted, open_extractor
from agd_core.evaluation.extractors.clip import prompt
from tests.agd_core.evaluation.extractors.tiny_clip import write_tiny_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "clip")


@pytest.fixture(scope="module")
def network(folder):
    return transformers.CLIPModel.from_pretrained(folder).eval()


def opened(folder):
    return open_extractor("clip", str(folder), None, torch.device("cpu"))


def image_features(network, photo, **colours):
    """As transformers makes them."""
    settings = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}, **colours}
    pixels = transformers.CLIPImageProcessor(**settings)(Image.fromarray(photo.numpy()), return_tensors="pt")
    with torch.inference_mode():
        return network.get_image_features(**pixels).pooler_output


@pytest.mark.parametrize("turned", [False, True], ids=["upright", "wide"])
def test_features_are_those_of_transformers(folder, network, photo, turned):
    picture = photo.transpose(0, 1) if turned else photo
    ours, theirs = opened(folder).extract(picture[None]), image_features(network, picture)
    assert ours.logits is None
    torch.testing.assert_close(ours.features, theirs, rtol=1e-4, atol=1e-5)


def test_colours_are_normalised_as_the_folder_says(copy, network, photo):
    colours = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.3, 0.4, 0.5]}
    (copy / "preprocessor_config.json").write_text(json.dumps(colours))
    features = opened(copy).extract(photo[None]).features
    torch.testing.assert_close(features, image_features(network, photo, **colours), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(features, image_features(network, photo), rtol=1e-2)


def test_agreement_is_the_clip_score(folder, network, cuttings):
    """Every image with its own text, computed by transformers one by one, without padding."""
    extractor = opened(folder)
    asked = ["a photo of a dog in the snow", "Ankle boot", "zebra", "a photo of a dog in the snow"]
    texts = [asked[0], "a photo of a Ankle boot", "a photo of a zebra", asked[0]]
    extracted = extractor.extract(cuttings[:4])
    agreement = extractor.agreement(extracted, torch.zeros(4, dtype=torch.int64), asked)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        embedded = [network.get_text_features(**tokenizer(text, return_tensors="pt")).pooler_output for text in texts]
    cosine = cosine_similarity(extracted.features, torch.cat(embedded))
    assert agreement.metric == "clip_score"
    torch.testing.assert_close(agreement.values, 100 * cosine.clamp_min(0), rtol=1e-4, atol=1e-4)
    assert len(agreement.values.unique()) > 1


def test_disagreement_is_zero_not_negative(folder, cuttings):
    extractor = opened(folder)
    extracted, signs = extractor.extract(cuttings[:1]), set()
    for sign in (1, -1):
        features = sign * extracted.features
        agreement = extractor.agreement(Extracted(features, None), torch.zeros(1, dtype=torch.int64), ["zebra"])
        cosine = cosine_similarity(features, extractor.embed(["a photo of a zebra"]))
        signs.add(float(cosine.sign()))
        torch.testing.assert_close(agreement.values, 100 * cosine.clamp_min(0))
    assert signs == {1.0, -1.0}


def test_a_text_is_embedded_alike_alone_and_among_others(folder):
    extractor = opened(folder)
    texts = [letter * (index + 1) for index, letter in enumerate(string.ascii_lowercase)]
    together = extractor.embed(texts)
    assert torch.equal(torch.cat([extractor.embed([text]) for text in texts]), together)
    assert len(together.unique(dim=0)) == len(texts)


def test_long_prompts_are_cut(folder):
    extractor = opened(folder)
    assert torch.equal(extractor.embed(["a" * 100]), extractor.embed(["a" * 200]))


def test_names_of_classes_become_prompts():
    assert prompt("zebra") == "a photo of a zebra"
    assert prompt("Ankle boot") == "a photo of a Ankle boot"
    assert prompt("a red cube") == "a red cube"


def test_identity_and_resize_say_what_is_used(folder, copy):
    extractor = opened(folder)
    assert extractor.resize == "short side 64, bicubic with antialiasing in 8 bits, centre 64 x 64"
    assert opened(copy).identity() == extractor.identity()
    (copy / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5]}')
    assert opened(copy).identity() != extractor.identity()


def test_a_folder_without_tokenizer_is_refused(copy, one_line):
    (copy / "tokenizer.json").unlink()
    assert "has no tokenizer" in one_line(opened, copy)


@pytest.mark.parametrize("content", ["no json", "[1]", '{"image_mean": [0.5]}', '{"image_std": "dark"}'])
def test_unreadable_settings_are_refused(content, copy, one_line):
    (copy / "preprocessor_config.json").write_text(content)
    assert "preprocessor_config.json" in one_line(opened, copy)


def test_a_damaged_tokenizer_is_refused(copy, one_line):
    (copy / "tokenizer.json").write_text("no json")
    assert "cannot read the tokenizer" in one_line(opened, copy)


def test_a_folder_of_something_else_is_refused(tmp_path, one_line):
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    assert "holds a model of type 'siglip', not 'clip'" in one_line(opened, tmp_path)
