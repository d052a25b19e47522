import pytest

from agd_core.evaluation.metrics import quantities
from agd_core.report.columns import TableCell, cell, explained, measured, tables, warned
from tests.agd_core.report.made_up import METHODS, full_row, row, score
from tests.result_rows import PROTOCOL


def test_one_table_per_sampler_one_group_per_scale():
    rows = [full_row("CFG", scale, steps) for scale, steps in ((2.0, 20), (3.0, 20), (2.0, 10))]
    rows.append(full_row("CFG", 2.0).model_copy(update={"scheduler": "euler"}))
    found = [(table.title, [group.title for group in table.groups]) for table in tables(rows)]
    assert found == [
        ("ddim, 20 steps", ["guidance scale 2", "guidance scale 3"]),
        ("ddim, 10 steps", ["guidance scale 2"]),
        ("euler, 20 steps", ["guidance scale 2"]),
    ]


def test_cfg_comes_first_and_no_guidance_last():
    (table,) = tables([full_row(name, 2.0) for name in METHODS])
    names = [line[0].text for line in table.groups[0].lines]
    assert names == ["CFG", "agd-modulated-mlp", "agd-offset", "no guidance"]


def test_what_needs_no_training_stands_between_the_adapters_and_no_guidance():
    rule = {"kind": "cfg-gate", "until": 0.5, "rule": {"kind": "cfg"}}
    gate = row("CFG gate 0.5", method="cfg-gate", adapter_parameters=0, teacher_scale=2.0, training_free=rule)
    (table,) = tables([gate, *(full_row(name, 2.0) for name in METHODS)])
    names = [line[0].text for line in table.groups[0].lines]
    assert names == ["CFG", "agd-modulated-mlp", "agd-offset", "CFG gate 0.5", "no guidance"]


def test_a_number_is_judged_against_the_teachers_of_the_same_point():
    def line(name, scale, fd, **changes):
        scores = {"fd": score(fd, width=0.098) | {"standard_error": 0.05}, "kid": score(0.1)}
        protocol = {**PROTOCOL.as_dict(), "guidance_scale": scale}
        return row(name, teacher_scale=scale, scores=scores, protocol=protocol, **changes)

    teachers = [line("CFG", scale, fd, adapter_parameters=0) for scale, fd in ((2.0, 1.0), (3.0, 2.0))]
    rows = [*teachers, line("far", 2.0, 1.5), line("near", 2.0, 1.05), line("best", 3.0, 1.5), line("alone", 4.0, 1.0)]
    shown = [each for group in tables(rows)[0].groups for each in group.lines]
    assert {each[0].text: each[2].verdict for each in shown} == {
        "CFG": "",
        "far": "worse",
        "near": "same",
        "best": "better",
        "alone": "",
    }
    assert {each[3].verdict for each in shown} == {""}, "without an interval there is nothing to say"


def test_only_what_was_measured_has_a_column_and_gaps_are_dashes():
    rows = [row("CFG", scores={"kid": score(0.1)}), row("agd", scores={"fd": score(0.5), "kid": score(0.2)})]
    (table,) = tables(rows)
    assert table.headings == ("method", "NFE ↓", "FD ↓", "KID ↓")
    assert [line[2].text for line in table.groups[0].lines] == ["-", "0.50"]


def test_a_metric_that_nobody_described_is_shown_last():
    rows = [row("CFG", scores={"new_metric": score(0.123456, "higher"), "fd": score(1.0)})]
    (table,) = tables(rows)
    assert table.headings[2:] == ("FD ↓", "new metric ↑")
    assert table.groups[0].lines[0][3].text == "0.1235"
    assert list(explained(rows)) == ["FD ↓"]


@pytest.mark.parametrize("column", quantities().values(), ids=lambda column: column.name)
def test_every_metric_shows_value_interval_and_meaning(column):
    found = cell(row("CFG", scores={column.name: score(0.5, width=0.25)}), column)
    middle, low, high = (column.format.format(number) for number in (0.5, 0.25, 0.75))
    assert found == TableCell(middle, f"{low} to {high}")
    assert column.meaning.endswith(".")


def test_warnings_come_once_with_their_metrics():
    few, odd = score(1.0, warnings=["few images"]), score(1.0, warnings=["few images", "odd"])
    rows = [row("CFG", scores={"kid": few, "fd": few}), row("agd", scores={"fd": odd})]
    assert warned(rows) == {"few images": "FD, KID", "odd": "FD"}
    assert [column.name for column in measured(rows)] == ["fd", "kid"]


def test_cfg_against_itself_has_dashes_and_a_paired_error_of_zero():
    own = row("CFG", scores={"paired_mse": score(0.0)})
    paired = {name: score(0.9, "higher") for name in ("psnr", "ssim", "feature_cosine", "lpips")}
    (table,) = tables([own, row("agd", scores={"paired_mse": score(0.1), **paired})])
    (line, _) = table.groups[0].lines
    assert [shown.text for shown in line] == ["CFG", "20", "0.0000", "-", "-", "-", "-"]


def test_the_cap_of_psnr_is_said():
    (meaning,) = explained([row("agd", scores={"psnr": score(58.9, "higher")})]).values()
    assert "58.9 dB is the cap: identical images" in meaning


def test_no_number_is_shown_as_such_and_keeps_its_warnings():
    found = {**score(1.0, warnings=["few"]), "value": None}
    assert cell(row("agd", scores={"fd": found}), quantities()["fd"]) == TableCell("no number", "", ("few",))
