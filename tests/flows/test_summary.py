import pytest

from flows.stages import summary as sentences
from tests.result_rows import as_row, row, score


def summary(rows):
    return sentences.summary([as_row(one) for one in rows])


def shown(name, fd, accuracy, paired_mse=0.1, fd_error=0.02, **changes):
    scores = {
        "fd": score(fd, fd_error, **changes),
        "accuracy": score(accuracy, 0.005, "higher"),
        "paired_mse": score(paired_mse, 0.001),
    }
    return row(name, scores)


CFG = shown("CFG", 0.64, 0.98, 0.0)
NONE = shown("no guidance", 1.9, 0.9, 0.3)


def test_the_verdict_is_the_cost_and_two_judged_metrics():
    text = summary([NONE, CFG, shown("agd-offset", 0.65, 0.93)])
    assert text == (
        "At guidance scale 2 classifier-free guidance (CFG) takes 40 network evaluations per image; agd-offset takes "
        "20, with 4.7 % extra parameters. "
        "Fréchet distance: 0.65 (0.61 to 0.69) with the adapter, 0.64 (0.60 to 0.68) with CFG: the same at 95 %; "
        "without guidance 1.90 (1.86 to 1.94): worse at 95 %. "
        "Class accuracy: 93.0% (92.0% to 94.0%) with the adapter, 98.0% (97.0% to 99.0%) with CFG: worse at 95 %; "
        "without guidance 90.0% (89.0% to 91.0%): worse at 95 %."
    )


@pytest.mark.parametrize(("fd", "verdict"), [(0.5, "better"), (0.62, "the same"), (0.8, "worse")])
def test_the_verdict_follows_the_numbers(fd, verdict):
    assert f"0.64 (0.60 to 0.68) with CFG: {verdict} at 95 %." in summary([CFG, shown("agd-offset", fd, 0.98)])


def test_the_adapter_closest_to_cfg_is_named_as_such():
    far, near = shown("far", 0.3, 0.99, 0.2), shown("near", 0.9, 0.9, 0.05)
    text = summary([CFG, far, near])
    assert "; near, the adapter closest to CFG's images (smallest paired MSE), takes 20" in text
    assert "0.90 (0.86 to 0.94) with the adapter" in text


def test_an_adapter_without_a_paired_error_is_not_the_closest():
    unknown = shown("unknown", 0.3, 0.99)
    unknown["scores"]["paired_mse"]["value"] = None
    assert "; near, the adapter closest" in summary([CFG, unknown, shown("near", 0.9, 0.9)])
    assert "closest" not in summary([CFG, unknown, unknown])


def test_what_needs_no_training_is_weighed_against_the_adapter():
    rule = {"kind": "cfg-gate", "until": 0.5, "rule": {"kind": "cfg"}}
    rows = [CFG, shown("agd-offset", 0.65, 0.98, 0.1)]
    for name, error in (("CFG gate 0.5", 0.2), ("CFG cache 2", 0.05), ("CFG cache 3", 0.101)):
        sparing = shown(name, 0.64, 0.98, error)
        rows.append(sparing | {"nfe": 30.0, "adapter_parameters": 0, "method": "cfg-gate", "training_free": rule})
    assert summary(rows).endswith(
        " Without training, against the adapter's paired MSE of 0.1000 (0.0980 to 0.1020): CFG gate 0.5 takes 30 "
        "evaluations and has 0.2000 (0.1980 to 0.2020), worse at 95 %; CFG cache 2 takes 30 evaluations and has 0.0500 "
        "(0.0480 to 0.0520), better at 95 %; CFG cache 3 takes 30 evaluations and has 0.1010 (0.0990 to 0.1030), the "
        "same at 95 %."
    )
    assert "with CFG: the same" in summary(rows), "the teacher is still the teacher"
    assert "Without training" not in summary([row("CFG", {}), row("agd-offset", {}), *rows[2:]])


def test_a_warning_is_said_with_its_metric():
    text = summary([CFG, shown("agd-offset", 0.65, 0.93, warnings=["few images"])])
    assert "the same at 95 %; a warning belongs to these numbers, see below. Class accuracy" in text
    assert text.count("a warning") == 1


def test_without_interval_or_number_there_is_no_verdict():
    text = summary([CFG, shown("agd-offset", 0.65, 0.93, fd_error=None)])
    assert "Fréchet distance: 0.65 with the adapter, 0.64 (0.60 to 0.68) with CFG: no interval, so no verdict." in text
    lost = shown("agd-offset", 0.65, 0.93)
    lost["scores"]["fd"] |= {"value": None, "low": None, "high": None}
    assert "no number with the adapter, 0.64 (0.60 to 0.68) with CFG: no number, so no verdict." in summary([CFG, lost])


def test_what_was_not_measured_is_not_spoken_of():
    rows = [row(name, {}) for name in ("CFG", "agd-offset")]
    assert summary(rows).endswith("agd-offset takes 20, with 4.7 % extra parameters.")


def test_another_rule_is_called_by_its_name():
    rows = [row(name, {}, method=kind) for name, kind in (("CFG, rescale 0.7", "cfg"), ("agd-offset", "agd-offset"))]
    assert "guidance by CFG, rescale 0.7 takes" in summary(rows)
