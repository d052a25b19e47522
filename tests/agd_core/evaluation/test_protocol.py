"""Protocols are the same only where everything that shapes a number is."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agd_core.basics.errors import InputError
from agd_core.evaluation.comparing.shaping import shaping
from agd_core.evaluation.protocol import FIELDS, NOT_RECORDED, Protocol, differences, library_versions
from tests.result_rows import LIBRARIES, PROTOCOL

REFERENCE = PROTOCOL.reference
UNLIKE = [
    ({"base_digest": "c" * 64}, "base_digest: bbbbbbbbbbbb here, cccccccccccc there", "paired_mse"),
    ({"guidance": {"kind": "cfg", "guided_channels": 3}}, "guidance.guided_channels: none here, 3 there", "psnr"),
    ({"extractor": "dinov2"}, "extractor: fashion-classifier here, dinov2 there", "fd"),
    ({"extractor_sha256": "f" * 64}, "extractor_sha256: eeeeeeeeeeee here, ffffffffffff there", "kid"),
    ({"judge": "clip"}, "judge: fashion-classifier here, clip there", "clip_score"),
    ({"judge_sha256": "f" * 64}, "judge_sha256: eeeeeeeeeeee here, ffffffffffff there", "accuracy"),
    ({"resize": "299 x 299"}, "resize: none, 32 x 32 here, 299 x 299 there", "inception_score"),
    ({"quantisation": "truncation"}, "quantisation: uint8 by rounding here, truncation there", "ssim"),
    ({"reference": {**REFERENCE, "crop": 256}}, "reference.crop: none here, 256 there", "precision"),
    ({"reference": {**REFERENCE, "sha256": "0" * 64}}, "reference.sha256: aaaaaaaaaaaa here, 000000000000 there", "fd"),
    ({"reference": {**REFERENCE, "images": 10000}}, "reference.images: 60000 here, 10000 there", "recall"),
    ({"prompts": "b" * 64}, "prompts: none here, bbbbbbbbbbbb there", "fd"),
    ({"images": 5000}, "images: 1000 here, 5000 there", "fd"),
    ({"seed": 2}, "seed: 1 here, 2 there", "paired_mse"),
    ({"scheduler": "euler"}, "scheduler: ddim here, euler there", "accuracy"),
    ({"steps": 50}, "steps: 20 here, 50 there", "fd"),
    ({"guidance_scale": 3.5}, "guidance_scale: 2 here, 3.5 there", "fd"),
    (
        {"settings": {**PROTOCOL.settings, "distance_subsets": 5}},
        "settings.distance_subsets: 100 here, 5 there",
        "fd",
    ),
    ({"settings": {**PROTOCOL.settings, "neighbours": 5}}, "settings.neighbours: 3 here, 5 there", "precision"),
    ({"settings": {**PROTOCOL.settings, "kid_subsets": 5}}, "settings.kid_subsets: 20 here, 5 there", "kid"),
    ({"libraries": {**LIBRARIES, "torch": "2.14.0"}}, "libraries.torch: 2.15.0 here, 2.14.0 there", "fd"),
    ({"libraries": {**LIBRARIES, "scipy": "1.16"}}, "libraries.scipy: not recorded here, 1.16 there", "accuracy"),
]


@pytest.mark.parametrize(("change", "words", "metric"), UNLIKE, ids=[words.split(":")[0] for _, words, _ in UNLIKE])
def test_every_unlike_field_is_named_and_can_be_allowed(change, words, metric):
    other = replace(PROTOCOL, **change)
    [difference] = PROTOCOL.differences(other)
    assert difference.text() == words
    assert PROTOCOL.differences(other, [difference.top_field]) == []
    assert PROTOCOL.differences(other, [difference.field]) == []
    assert PROTOCOL.differences(other, [name for name in FIELDS if name != difference.top_field]) == [difference]
    assert shaping([difference], metric) == [difference]
    assert shaping([difference], "a metric of tomorrow") == [difference]


def test_the_table_leaves_out_no_field():
    assert {name for change, _, _ in UNLIKE for name in change} == set(FIELDS) - {"base_model", "distance"}


@pytest.mark.parametrize(
    ("change", "metric"),
    [
        ({"extractor": "dinov2", "reference": None}, "paired_mse"),
        ({"base_digest": "c" * 64}, "fd"),
        ({"judge": "clip"}, "fd"),
        ({"reference": None}, "accuracy"),
        ({"libraries": {**LIBRARIES, "torch-fidelity": "0.3.0"}}, "ssim"),
        ({"libraries": {**LIBRARIES, "torchmetrics": "1.9.0"}}, "fd"),
        ({"settings": {**PROTOCOL.settings, "neighbours": 5, "lpips_weights": "1" * 64}}, "kid"),
    ],
)
def test_a_field_that_does_not_shape_a_metric_does_not_refuse_it(change, metric):
    other = replace(PROTOCOL, **change)
    assert (found := PROTOCOL.differences(other))
    assert shaping(found, metric) == []


@pytest.mark.parametrize("metric", ["fd", "paired_mse", "a metric of tomorrow"])
def test_words_beside_a_digest_refuse_nothing(metric):
    other = replace(PROTOCOL, base_model="elsewhere", reference={**REFERENCE, "description": "the same files"})
    assert shaping(PROTOCOL.differences(other), metric) == []


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_not_recorded_equals_nothing(name):
    lacking = {key: value for key, value in PROTOCOL.as_dict().items() if key != name}
    for here, there in ((PROTOCOL.as_dict(), lacking), (lacking, PROTOCOL.as_dict()), (lacking, lacking)):
        [difference] = differences(here, there)
        assert difference.field == name
        assert NOT_RECORDED in difference.text()


def test_an_unknown_field_counts_as_different_where_one_has_it():
    newer = {**PROTOCOL.as_dict(), "dithering": "blue noise"}
    [difference] = shaping(differences(PROTOCOL.as_dict(), newer), "fd")
    assert difference.text("in A", "in B") == "dithering: not recorded in A, blue noise in B"
    assert differences(newer, newer) == []


def test_writing_and_reading_changes_nothing():
    read = Protocol.from_dict(json.loads(json.dumps(PROTOCOL.as_dict())))
    assert read == PROTOCOL
    assert read.as_dict() == PROTOCOL.as_dict()
    with_tuple = replace(PROTOCOL, settings={"metrics": ("fd", "kid")})
    assert with_tuple.differences(Protocol.from_dict(with_tuple.as_dict())) == []


@pytest.mark.parametrize("change", [lambda data: data.pop("seed"), lambda data: data.update(dithering=1)])
def test_reading_another_version_is_refused_in_one_line(change):
    data = PROTOCOL.as_dict()
    change(data)
    with pytest.raises(InputError, match=r"not a protocol of this version: (seed|dithering) missing or unknown"):
        Protocol.from_dict(data)


def test_what_json_cannot_hold_is_no_protocol():
    with pytest.raises(TypeError):
        replace(PROTOCOL, settings={"metrics": {"fd"}}).as_dict()


def test_installed_libraries_are_recorded_by_default():
    made = Protocol(**{name: value for name, value in vars(PROTOCOL).items() if name != "libraries"})
    assert made.libraries == library_versions()
    assert {"torch", "diffusers", "torch-fidelity", "torchmetrics", "numpy"} < made.libraries.keys()


def test_the_lines_of_the_report_name_every_value():
    text = " ".join(PROTOCOL.lines().values())
    for part in ("builtin:fashion-dit", "b" * 12, "1,000", "seed 1", "ddim, 20 steps", "rounding", "60000", "e" * 12):
        assert part in text
    assert "b" * 13 not in text
    assert replace(PROTOCOL, reference=None).lines()["real images"] == "none"


@given(st.lists(st.sampled_from(UNLIKE), unique_by=lambda case: next(iter(case[0]))))
def test_several_differences_are_all_named_in_both_directions(cases):
    other = replace(PROTOCOL, **{name: value for change, _, _ in cases for name, value in change.items()})
    found = PROTOCOL.differences(other)
    assert {item.text() for item in found} == {words for _, words, _ in cases}
    assert other.differences(other) == []
    assert [(item.field, item.there, item.here) for item in other.differences(PROTOCOL)] == [
        (item.field, item.here, item.there) for item in found
    ]
