"""Verdicts: which way is better, what is noise, and what cannot be compared."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agd_core.basics.errors import InputError
from agd_core.evaluation.comparing.comparison import Choice, compare, require_comparable
from agd_core.evaluation.comparing.judging import judge, overall
from agd_core.evaluation.comparing.row_pairs import Source
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.metrics import METRICS, FeatureStatistics, Measured, Reference, Seen
from agd_core.evaluation.metrics.standard_errors import NORMAL_95
from tests.result_rows import PROTOCOL, as_row, as_score, row, score, scores

LIKE = (PROTOCOL.as_dict(), PROTOCOL.as_dict())
MIRRORED = {"better": "worse", "worse": "better"}
NAN = math.nan


def verdict(baseline, other, **arguments):
    return judge("fd", (as_score(baseline), as_score(other)), LIKE, **arguments).verdict


def source(label, *rows):
    return Source(label, f"folder {label}", [as_row(row) for row in rows])


def compare_two(a, b, **choice):
    comparisons, lacking = compare([source("A", *a), source("B", *b)], Choice(**choice))
    return comparisons, lacking


def names(comparisons):
    return [(item.rows[0].name, item.rows[1].name, item.rows[1].teacher_scale) for item in comparisons]


@pytest.mark.parametrize(
    ("better", "baseline", "other", "expected"),
    [
        ("lower", 1.0, 0.5, "better"),
        ("lower", 0.5, 1.0, "worse"),
        ("higher", 1.0, 0.5, "worse"),
        ("higher", 0.5, 1.0, "better"),
        ("lower", 1.0, 1.0, "same"),
        ("lower", -1.0, -2.0, "better"),
        ("lower", 0.0, 0.05 * 1.95, "same"),
        ("lower", 0.0, 0.05 * 1.97, "worse"),
        ("higher", 0.0, 0.05 * 1.97, "better"),
    ],
)
def test_direction_and_boundary(better, baseline, other, expected):
    assert verdict(score(baseline, 0.03, better), score(other, 0.04, better)) == expected


def test_exactly_on_the_boundary_is_the_same():
    assert verdict(score(0.0, 0.0), score(NORMAL_95 * 0.25, 0.25)) == "same"
    assert verdict(score(0.0, 0.0), score(math.nextafter(NORMAL_95 * 0.25, 1), 0.25)) == "worse"


def test_errors_add_in_squares():
    judged = judge("fd", (as_score(score(1.0, 0.03)), as_score(score(1.5, 0.04))), LIKE)
    assert judged.standard_error == pytest.approx(0.05)
    assert judged.difference == pytest.approx(0.5)
    assert judged.interval == pytest.approx((0.5 - 1.96 * 0.05, 0.5 + 1.96 * 0.05))


def test_rounding_is_no_difference_although_errors_are_zero():
    assert verdict(score(0.3, 0.0), score(0.1 + 0.2, 0.0)) == "same"
    assert verdict(score(0.3, 0.0), score(0.3001, 0.0)) == "worse"


@pytest.mark.parametrize(
    ("baseline", "other", "expected"),
    [
        (score(1.0, None), score(0.5), "unknown (no interval)"),
        (score(1.0), score(0.5, None), "unknown (no interval)"),
        (score(1.0, NAN), score(0.5), "unknown (no interval)"),
        (score(1.0, math.inf), score(0.5), "unknown (no interval)"),
        (score(NAN), score(0.5), "unknown (no number)"),
        (score(1.0), score(NAN), "unknown (no number)"),
        (score(1.0), score(math.inf), "unknown (no number)"),
        (score(1.0), {**score(1.0), "value": None}, "unknown (no number)"),
        (None, score(1.0), "not comparable"),
        (score(1.0), None, "not comparable"),
        (score(1.0, better="higher"), score(1.0), "not comparable"),
    ],
)
def test_what_is_no_number_gets_no_verdict_and_stays_json(baseline, other, expected):
    judged = judge("fd", (as_score(baseline), as_score(other)), LIKE)
    assert judged.verdict == expected
    assert json.loads(json.dumps(judged.as_dict(), allow_nan=False))["verdict"] == expected


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["same", "better"], "better"),
        (["same", "worse", "not comparable"], "worse"),
        (["better", "worse", "same"], "mixed"),
        (["same", "unknown (no interval)", "not comparable"], "same"),
        (["unknown (no interval)", "not comparable"], "unknown (no interval)"),
        (["better", "unknown (no number)"], "unknown (no number)"),
        (["not comparable"], "not comparable"),
        ([], "not comparable"),
    ],
)
def test_overall(verdicts, expected):
    assert overall(verdicts) == expected


UNLIKE = [
    {"extractor": "dinov2"},
    {"extractor_sha256": "f" * 64},
    {"images": 5000},
    {"resize": "299 x 299"},
    {"scheduler": "euler"},
    {"steps": 50},
    {"reference": {"sha256": "0" * 64}},
    {"reference": {"crop": 256}},
    {"quantisation": "truncation"},
    {"libraries": {"torch": "2.14.0"}},
    {"seed": 2},
    {"scale": 3.0},
]


@pytest.mark.parametrize("unlike", UNLIKE, ids=[next(iter(item)) for item in UNLIKE])
def test_unlike_protocols_are_refused_by_name_until_allowed(unlike):
    field = {"scale": "guidance_scale"}.get(next(iter(unlike)), next(iter(unlike)))
    rows = [row()], [row(measured=scores(fd=0.3), **unlike)]
    comparisons, _ = compare_two(*rows, metrics=["fd"])
    assert [item.verdict for item in comparisons] == ["not comparable"]
    with pytest.raises(
        InputError, match=rf"^not comparable: {field}.* in A, .* in B \(--allow {field} to compare neve"
    ):
        require_comparable(comparisons)
    [allowed], _ = compare_two(*rows, metrics=["fd"], allowed=[field])
    require_comparable([allowed])
    assert allowed.verdict == "better"
    assert allowed.reasons() == []
    assert [text.partition(":")[0].partition(".")[0] for text in allowed.allowed()] == [field]


def test_one_metric_may_be_comparable_and_another_not():
    [item], _ = compare_two([row()], [row(base_digest="c" * 64)])
    assert {judged.metric: judged.verdict for judged in item.metrics} == {
        "fd": "same",
        "accuracy": "same",
        "paired_mse": "not comparable",
    }
    assert item.reasons() == ["base_digest: bbbbbbbbbbbb in A, cccccccccccc in B"]
    assert item.verdict == "same"


def test_a_metric_that_one_lacks_is_named():
    [item], _ = compare_two([row(measured={"fd": score(1.0)})], [row()])
    assert item.reasons() == [
        "accuracy was not measured for agd-offset in A",
        "paired_mse was not measured for agd-offset in A",
    ]


def test_no_metric_in_common_is_refused_without_a_hint_that_would_not_help():
    comparisons, _ = compare_two([row(measured={"fd": score(1.0)})], [row(measured={"kid": score(1.0)})])
    with pytest.raises(InputError) as error:
        require_comparable(comparisons)
    assert str(error.value) == (
        "not comparable: fd was not measured for agd-offset in B; kid was not measured for agd-offset in A"
    )


def test_same_noise_is_known_by_seed_and_base():
    changes = ({}, {"seed": 2}, {"base_digest": "c" * 64})
    found = [compare_two([row()], [row(**change)])[0][0].same_noise for change in changes]
    assert found == [True, False, False]


def test_rows_are_matched_by_name_and_point_and_what_is_lacking_is_named():
    a = [row(name, scale=scale) for scale in (2.0, 3.0) for name in ("CFG", "agd-x", "agd-y")]
    b = [row(name, scale=scale) for scale in (4.0, 3.0) for name in ("CFG", "agd-y", "agd-z", "agd-w")]
    comparisons, lacking = compare_two(a, b)
    assert names(comparisons) == [("agd-y", "agd-y", 3.0)]
    assert lacking == [
        "A has no agd-w, B has",
        "A has no agd-z, B has",
        "B has no agd-x, A has",
        "A has no agd-y at scale 4, ddim, 20 steps, B has",
        "B has no agd-y at scale 2, ddim, 20 steps, A has",
    ]


def test_a_single_adapter_is_compared_with_all_of_the_other_side():
    several = [row("agd-x"), row("agd-y"), row("CFG")]
    assert names(compare_two([row("agd-z")], several)[0]) == [("agd-z", "agd-x", 2.0), ("agd-z", "agd-y", 2.0)]
    assert names(compare_two(several, [row("agd-z")])[0]) == [("agd-x", "agd-z", 2.0), ("agd-y", "agd-z", 2.0)]


def test_methods_are_chosen_by_name_or_kind():
    rows = [row("no guidance"), row("CFG"), row("agd-x"), row("agd-y")]
    assert names(compare_two(rows, rows, methods=["CFG"])[0]) == [("CFG", "CFG", 2.0)]
    assert names(compare_two(rows, rows, methods=["none", "agd-x"])[0]) == [
        ("no guidance", "no guidance", 2.0),
        ("agd-x", "agd-x", 2.0),
    ]
    with pytest.raises(InputError, match="no row of agd-w; --method takes no guidance, CFG, agd-x, agd-y"):
        compare_two(rows, rows, methods=["agd-w"])


def test_several_adapters_of_other_names_must_be_chosen():
    a, b = [row("agd-x"), row("agd-y")], [row("agd-v"), row("agd-w")]
    with pytest.raises(InputError, match=r"^no method is in both: A has no agd-v, .*; choose with --method$"):
        compare_two(a, b)
    assert names(compare_two(a, b, methods=["agd-x", "agd-w"])[0]) == [("agd-x", "agd-w", 2.0)]


def test_allowed_points_are_those_that_differ_in_nothing_else():
    a = [row(steps=20, scale=2.0), row(steps=50, scale=3.0)]
    b = [row(steps=20, scale=5.0), row(steps=50, scale=4.0)]
    [item], _ = compare_two(a, b, allowed=["guidance_scale"])
    assert item.allowed() == ["guidance_scale: 2 in A, 5 in B"]
    assert item.verdict == "same"
    shared, _ = compare_two(a, [*a, *b], allowed=["guidance_scale"])
    assert names(shared) == [("agd-offset", "agd-offset", 2.0), ("agd-offset", "agd-offset", 3.0)]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"allowed": ["sead"]}, "--allow sead: a protocol has no such field; allowed: base_model, base_digest, "),
        ({"metrics": ["fid"]}, "--metric fid was not measured; measured: fd, accuracy, paired_mse"),
    ],
)
def test_misspelt_choices_are_refused(choice, message):
    with pytest.raises(InputError, match=message):
        compare_two([row()], [row()], **choice)


def test_three_sources_are_compared_with_the_first():
    a, b, c = row(), row(measured=scores(fd=0.3)), row(measured=scores(fd=1.5, accuracy=0.99))
    comparisons, lacking = compare([source("A", a), source("B", b), source("C", c)], Choice())
    assert [(item.labels, item.verdict) for item in comparisons] == [(("A", "B"), "better"), (("A", "C"), "mixed")]
    assert lacking == []


numbers = st.floats(-1e6, 1e6)
some_scores = st.dictionaries(
    st.sampled_from(["fd", "kid", "accuracy", "psnr", "of tomorrow"]),
    st.builds(score, numbers, st.one_of(st.none(), st.floats(0, 1e3)), st.sampled_from(["lower", "higher"])),
    min_size=1,
)
with_errors = some_scores.map(lambda found: {name: {**one, "standard_error": 0.1} for name, one in found.items()})


@given(with_errors)
def test_a_thing_is_the_same_as_itself(measured):
    [item], lacking = compare_two([row(measured=measured)], [row(measured=measured)])
    assert {judged.verdict for judged in item.metrics} == {"same"}
    assert (item.verdict, lacking) == ("same", [])


@given(some_scores, some_scores)
def test_swapping_swaps_better_and_worse(mine, theirs):
    [forth], _ = compare_two([row(measured=mine)], [row(measured=theirs)])
    [back], _ = compare_two([row(measured=theirs)], [row(measured=mine)])
    found = {judged.metric: judged.verdict for judged in back.metrics}
    assert found == {judged.metric: MIRRORED.get(judged.verdict, judged.verdict) for judged in forth.metrics}
    assert back.verdict == MIRRORED.get(forth.verdict, forth.verdict)


@given(st.floats(0.01, 10), st.floats(0, 5), st.floats(0, 5))
def test_a_verdict_rests_on_the_interval_of_the_difference(difference, error, other_error):
    judged = judge("fd", (as_score(score(0.0, error)), as_score(score(difference, other_error))), LIKE)
    assert (judged.verdict == "worse") == (judged.interval[0] > 0)


def measured_distances(features, reference):
    """Scores of the metric `frechet`."""
    images, width = features.shape
    pixels, latents = torch.zeros(images, 1, width, 1, dtype=torch.uint8), torch.zeros(images, 1, 1, 1)
    seen = Seen(pixels, latents, torch.arange(images) % 10, features)
    return METRICS["frechet"].scores(Measured(seen, None, reference), EvaluateConfig(distance_subsets=20))


@pytest.mark.parametrize(("correlation", "fewest", "most"), [(0.0, 0.01, 0.10), (0.9, 0.0, 0.0)])
def test_equals_seldom_read_better_or_worse(correlation, fewest, most):
    """Sets of 500 from one distribution in 16 features; correlation stands for the same noise."""
    draws = torch.Generator().manual_seed(1)
    real = torch.randn(2000, 16, generator=draws)
    reference = Reference(FeatureStatistics.of(real), real, "Gaussians")
    verdicts = []
    for _ in range(100):
        a, b = torch.randn(2, 500, 16, generator=draws)
        b = correlation * a + math.sqrt(1 - correlation**2) * b
        both = [measured_distances(features * 1.2 + 0.1, reference) for features in (a, b)]
        verdicts.append(judge("fd", (both[0]["fd"], both[1]["fd"]), LIKE).verdict)
    assert fewest <= 1 - verdicts.count("same") / len(verdicts) <= most
