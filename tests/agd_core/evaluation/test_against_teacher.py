"""Verdicts of a report: every row against the guided teacher at the same point."""

from agd_core.evaluation.comparing.against_teacher import against_teacher, teacher_beside
from agd_core.evaluation.metrics import quantities
from tests.result_rows import as_row, row, score

GATE = {"kind": "cfg-gate", "until": 0.5, "rule": {"kind": "cfg", "guided_channels": None}}
MEASURED = {"fd": score(0.7), "accuracy": score(0.95, 0.005, "higher"), "precision": score(0.7, None, "higher")}
CFG = as_row(row("CFG", MEASURED | {"paired_mse": score(0.0, None)}))


def spared(**scores):
    return as_row(row("CFG gate 0.5", {**MEASURED, **scores}, method="cfg-gate") | {"training_free": GATE} | NOTHING)


NOTHING = {"adapter_parameters": 0, "adapter_percent": 0.0}


def test_a_rule_without_training_is_no_teacher_and_is_judged():
    gate = spared(fd=score(1.0), accuracy=score(0.99, 0.005, "higher"))
    assert CFG.is_teacher
    assert not gate.is_teacher
    assert against_teacher(gate, CFG) == {"fd": "worse", "accuracy": "better", "precision": "unknown (no interval)"}
    assert against_teacher(CFG, CFG) == {}


def test_the_teacher_is_that_of_the_same_scale_sampler_and_steps():
    others = [
        as_row(row("CFG", MEASURED, **where)) for where in ({"scale": 3.0}, {"steps": 10}, {"scheduler": "euler"})
    ]
    gate = spared()
    assert teacher_beside(gate, [gate, *others]) is None
    assert teacher_beside(gate, [*others, gate, CFG]) is CFG
    assert against_teacher(gate, None) == {}


def test_a_paired_number_is_judged_where_chance_alone_keeps_it_from_the_teachers():
    paired = {"paired_mse": score(0.1), "ssim": score(0.9, 0.01, "higher")}
    shifts = {"contrast_shift": score(0.01, 0.01), "chroma_shift": score(0.3, 0.01)}
    found = against_teacher(spared(**paired, **shifts), CFG)
    assert {name: verdict for name, verdict in found.items() if name not in MEASURED} == {
        "contrast_shift": "same",
        "chroma_shift": "worse",
    }
    assert {name for name, known in quantities().items() if known.of_teacher is not None} == set(shifts)


def test_what_was_not_measured_of_the_teacher_has_no_verdict():
    assert "kid" not in against_teacher(spared(kid=score(0.1)), CFG)
