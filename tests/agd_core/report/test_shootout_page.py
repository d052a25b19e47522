"""The shoot-out's table and words, from made-up numbers."""

import pytest

from agd_core.evaluation.relative_error import with_relative_error
from agd_core.report.shootout import HEADINGS, Contest, Contestant, Spent, took
from agd_core.report.shootout_verdict import against_unguided, summary
from tests.result_rows import as_row, row, score

COST = {
    "gigaflops_per_step": 0.5,
    "milliseconds_per_step_batch_1": 10.0,
    "evaluated_images_per_second": 400.0,
    "saturation_batch": 64,
    "peak_memory_megabytes": 12.0,
}
SCALES = (2.0, 6.0)


def rows(name, error, fd=0.7, spent=None):
    """At two scales, with steps of 20."""
    found = []
    for scale in SCALES:
        scores = {"fd": score(fd), "accuracy": score(0.95, 0.005, "higher"), "paired_mse": score(error, 0.001)}
        took = {"adapter_bytes": 411_000, "training_seconds": 21.0} if spent else {}
        found.append(as_row(row(name, scores, scale) | took))
    return found


def contestant(name, error, fd=0.7, method="", spent=None, cost=None):
    bare = rows("no guidance", 0.1)
    related = (with_relative_error(mine, plain) for mine, plain in zip(rows(name, error, fd, spent), bare, strict=True))
    return Contestant(tuple(related), name, method, spent, cost)


def spent(steps=400, own=False):
    return Spent(steps, 128, (0, 1, 2), own, (20.0, 21.0, 22.0), 0.05, 9.0)


@pytest.fixture
def contest():
    return Contest(
        (
            contestant("no guidance", 0.1, cost=COST),
            contestant("CFG", 0.0, cost=COST),
            contestant("adapter", 0.02, method="adapter", spent=spent(), cost=COST),
            contestant("lora", 0.03, 0.9, "lora", spent()),
            contestant("lora-equal-time", 0.015, 0.6, "lora", spent(600, own=True)),
            contestant("CFG gate 0.5", 0.001),
        )
    )


def cells(contest, name):
    lines = [line for group in took(contest).groups for line in group.lines]
    return dict(zip(HEADINGS, next(line for line in lines if line[0].text == name), strict=True))


def test_a_line_says_what_training_and_an_image_took(contest):
    found = {heading: cell.text for heading, cell in cells(contest, "adapter").items()}
    assert found == {
        "method": "adapter",
        "training steps": "400",
        "a step, ms": "50.0",
        "training, s": "21.0",
        "training memory, MB": "9",
        "parameters ↓": "1,000",
        "file, MB ↓": "0.41",
        "NFE ↓": "20",
        "GFLOP per image ↓": "10",
        "one image, s ↓": "0.2",
        "s per image, saturated ↓": "0.05",
        "sampling memory, MB ↓": "12",
    }
    below = {heading: cell.below for heading, cell in cells(contest, "adapter").items() if cell.below}
    assert below == {
        "training steps": "of 128",
        "training, s": "20.0 to 22.0",
        "parameters ↓": "4.7 % of the base",
        "sampling memory, MB ↓": "batch 64",
    }


def test_what_was_not_trained_or_not_measured_is_a_dash(contest):
    bare, lora = cells(contest, "no guidance"), cells(contest, "lora")
    assert [cell.text for cell in bare.values()].count("-") == 6
    assert lora["one image, s ↓"].text == lora["sampling memory, MB ↓"].text == "-"


def test_lines_are_grouped_by_budget(contest):
    assert {group.title: [line[0].text for line in group.lines] for group in took(contest).groups} == {
        "equal steps": ["adapter", "lora"],
        "steps of its own": ["lora-equal-time"],
        "no training": ["no guidance", "CFG", "CFG gate 0.5"],
    }


def test_every_budget_has_every_method_once(contest):
    """One with a single budget stands in both plots."""
    found = {budget: [contestant.name for contestant in contestants] for budget, contestants in contest.budgets.items()}
    assert found == {"equal steps": ["adapter", "lora"], "steps of its own": ["adapter", "lora-equal-time"]}
    assert [contestant.name for contestant in contest.spared] == ["CFG gate 0.5"]


def test_nothing_that_was_trained_is_left_out_of_its_budget(contest):
    several = Contest(
        (
            *contest.contestants,
            contestant("lora-slow", 0.04, method="lora", spent=spent()),
            contestant("lora-longest", 0.01, method="lora", spent=spent(1200, own=True)),
        )
    )
    found = {budget: [each.name for each in contestants] for budget, contestants in several.budgets.items()}
    assert found == {
        "equal steps": ["adapter", "lora", "lora-slow"],
        "steps of its own": ["adapter", "lora-equal-time", "lora-longest"],
    }


def test_rows_stand_scale_by_scale(contest):
    assert [row.teacher_scale for row in contest.rows] == [2.0] * 6 + [6.0] * 6
    assert [row.name for row in contest.rows[:6]] == [contestant.name for contestant in contest.contestants]


def test_the_verdict_names_the_closest_and_who_is_as_good_as_the_teacher(contest):
    text = summary(contest, (1.0, 5.0))
    assert text.startswith(
        "2 methods learnt from one collection of guidance scales 1 to 5, with 3 seeds each. Closest to the teacher's "
        "images at guidance scale 2, by paired error as a share of no guidance's: adapter with equal steps, 0.200 "
        "(0.180 to 0.220); lora-equal-time with steps of its own, 0.150 (0.130 to 0.170). "
    )
    assert (
        "Fréchet distance against CFG's at 95 %: better: lora-equal-time; same: no guidance, adapter, CFG gate 0.5; "
        "worse: lora." in text
    )
    assert "Class accuracy against CFG's at 95 %: same: no guidance, adapter" in text


def test_the_paired_error_is_judged_against_no_guidance(contest):
    found = {(one["name"], one["guidance_scale"]): one["verdict"] for one in against_unguided(contest)}
    assert set(found) == {(contestant.name, scale) for contestant in contest.contestants[2:] for scale in SCALES}
    assert set(found.values()) == {"better"}
    worse = Contest((*contest.contestants[:2], contestant("bad", 0.2, method="bad", spent=spent())))
    assert against_unguided(worse)[0]["verdict"] == "worse"
