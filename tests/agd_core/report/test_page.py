import base64
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from agd_core.basics.errors import InputError
from agd_core.evaluation.rows import Headline
from agd_core.report.costs import COST_HEADINGS, TRAINING_HEADINGS, Costs
from agd_core.report.page import Page, Picture, render_page
from tests.agd_core.report import made_up
from tests.agd_core.report.made_up import FEW, costs, png, row, score

ATTACK = "<script>alert(1)</script>\"'><img onerror=x src=http://evil>&amp;</style></title>{{ 7 }}"


class Parsed(HTMLParser):
    """Tags with their attributes, texts as shown, and the tables cell by cell."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.tables, self._in_cell = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in {"td", "th"}:
            self.tables[-1][-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag not in {"td", "th"}

    def handle_data(self, data):
        self.texts.append(data)
        if self._in_cell:
            self.tables[-1][-1][-1] += f"{' ' if self.tables[-1][-1][-1] else ''}{data.strip()}"

    def values(self, *names):
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in names]

    def count(self, tag, kind=""):
        return sum(name == tag and kind in [*attributes.get("class", "").split(), ""] for name, attributes in self.tags)


def page(text="plain", rows=None, **changes):
    grid = Picture(text, text, png(), (text, text), 2, 8)
    rows = [row(text)] if rows is None else rows
    made = {"text": text}
    return Page(text, text, rows, [grid, grid], [Picture(text, text, png())], made, {text: text}, text, **changes)


def parsed(*arguments, **changes):
    return Parsed(render_page(page(*arguments, **changes)))


@pytest.mark.parametrize("text", ["plain", ATTACK])
def test_the_page_needs_nothing_from_outside(text):
    html = render_page(page(text))
    tags = Parsed(html)
    assert not {tag for tag, _ in tags.tags} & {"link", "iframe", "object", "embed", "base", "form"}
    assert all(value.startswith("#") for value in tags.values("href"))
    sources = tags.values("src", "srcset", "action", "data", "poster")
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("text", ["plain", ATTACK])
def test_one_script_runs_and_the_policy_names_no_other(text):
    tags = parsed(text)
    assert tags.count("script") == 1
    assert not [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]
    (policy,) = [value for value in tags.values("content") if "default-src" in value]
    assert "default-src 'none'; img-src data:;" in policy
    assert "unsafe" not in policy.partition("script-src")[2]


def test_every_text_is_shown_as_text():
    changes = {"notes": [ATTACK], "warnings": [ATTACK], "costs": replace(costs(), device=ATTACK)}
    tags = parsed(ATTACK, **changes)
    shown = "".join(tags.texts)
    title, headline, tables, compare, captions = 2, 1, 1, 4 * 2, 3 * 2
    trained, protocol, artefacts, command, extra = 1, 1, 2, 1, 3
    assert (
        shown.count(ATTACK)
        == title + headline + 1 + tables + compare + captions + trained + protocol + artefacts + command + extra
    )
    assert tags.values("title") == [ATTACK] * 6
    assert not [tag for tag, attributes in tags.tags if "onerror" in attributes]


def test_pictures_are_inside_byte_for_byte():
    for source in parsed().values("src"):
        assert base64.b64decode(source.partition(",")[2]) == png()


def test_every_row_and_heading_is_in_the_headline_table():
    names = [f"method number {number}" for number in range(17)]
    table = parsed(rows=[row(name) for name in names]).tables[0]
    assert table[0] == list(Headline.of([row("agd")]).headings)
    assert [line[0] for line in table[1:]] == names


def test_a_row_shows_what_was_measured():
    line = parsed(rows=[row("agd")]).tables[0][1]
    assert line == ["agd", "3", "20", "12.35 (11.00 to 13.50)", "87.5%", "0.0123", "41.3", "12,345 (2.0 %)"]


def test_a_row_shows_a_dash_where_nothing_was_measured():
    nothing = {"fd": None, "fd_low": None, "fd_high": None, "accuracy": None, "paired_mse": None}
    tags = parsed(rows=[row("none", adapter_parameters=0, adapter_percent=0.0, **nothing)])
    assert tags.tables[0][1] == ["none", "3", "20", "-", "-", "-", "41.3", "-"]
    assert tags.tables[1] == [["method", "NFE ↓"], ["guidance scale 3"], ["none", "20"]]


def test_a_metric_without_a_number_is_neither_a_dash_nor_a_number():
    lost = {**score(0.0), "value": None}
    tags = parsed(rows=[row("agd", scores={"fd": lost, "accuracy": lost})])
    assert tags.tables[0][1][3:6] == ["no number", "no number", "-"]
    assert tags.tables[1][2] == ["agd", "20", "no number", "no number"]


def test_a_distance_without_an_interval_is_shown_without_one():
    assert parsed(rows=[row("agd", fd_low=None, fd_high=None)]).tables[0][1][3] == "12.35"


def test_both_speeds_are_told_apart_under_their_tables():
    shown = " ".join("".join(parsed(costs=costs()).texts).split())
    assert "with the batches and the load of that run. The costs' “images/s at saturation” is another" in shown
    assert "Images/s at saturation: image steps/s over the steps of a whole image" in shown
    assert "at saturation" not in render_page(page())


def test_a_measured_zero_is_not_a_dash():
    assert parsed(rows=[row("teacher", paired_mse=0.0, accuracy=0.0)]).tables[0][1][4:6] == ["0.0%", "0.0000"]


def test_a_number_with_a_warning_is_marked_and_the_warning_listed():
    scores = {"fd": score(0.7, warnings=[FEW]), "kid": score(0.1, warnings=[FEW]), "precision": score(0.5, "higher")}
    tags = parsed(rows=[row("CFG", scores=scores)])
    assert tags.tables[0][1][3].endswith(" (!)")
    assert tags.tables[1][2] == ["CFG", "20", "0.70 (!)", "0.10000 (!)", "0.500"]
    assert tags.count("td", "warned") == 3
    (box,) = [index for index, text in enumerate(tags.texts) if text == "Warnings"]
    listed = "".join(tags.texts[box : box + 12])
    assert listed.count(FEW) == 1
    assert "FD, KID:" in listed


def test_what_a_judge_said_has_a_column_each():
    prompted = {name: score(0.5) for name in ("name_top1", "name_top5", "clip_score")}
    table = parsed(rows=[row("agd", scores=prompted), row("bare", scores={})]).tables[0]
    assert table[0][3:7] == ["FD (95 % interval)", "CLIP score", "name top-1", "paired MSE"]
    assert [line[4:6] for line in table[1:]] == [["0.50", "50.0%"], ["-", "-"]]


def test_without_warnings_notes_costs_and_pictures_their_sections_are_missing():
    plain = Page("t", "s", [row("CFG", adapter_parameters=0)], [], [], {}, {}, "agd")
    ids = Parsed(render_page(plain)).values("id")
    assert ids == ["results", "protocol", "provenance", "command"]


def test_a_page_without_rows_is_a_page():
    assert Parsed(render_page(Page("t", "s", [], [], [], {}, {}, "agd"))).tables[0] == [list(Headline.of([]).headings)]


def test_protocol_artefacts_command_and_notes_are_shown():
    full = Page(
        "t", "s", [], [], [], {"images": "1,000"}, {"adapter": "ab12"}, "agd distill x", notes=["random weights"]
    )
    tags = Parsed(render_page(full))
    assert tags.tables[1:] == [[["images", "1,000"]], [["adapter", "ab12"]]]
    assert {"agd distill x", "random weights"} <= set(tags.texts)


def test_costs_say_what_a_whole_image_takes():
    method = {**costs().methods[0], "milliseconds_per_step_batch_1": 3.0, "evaluated_images_per_second": 200.0}
    table = parsed(costs=Costs("a card", 1, "bfloat16", 50, [method])).tables[2]
    line = dict(zip(COST_HEADINGS, table[1], strict=True))
    assert table[0] == list(COST_HEADINGS)
    assert line["one image, ms"] == "150.0"
    assert line["images/s at saturation"] == "4.00"
    assert "images/s" not in COST_HEADINGS
    assert line["peak memory, MB"] == "-"
    assert (line["GFLOP per step"], line["GFLOP per image"]) == ("0.134", "6.7")
    assert Costs("a card", 1, "bfloat16", 50, [method]).place == "a card, 1 thread, bfloat16"


def test_costs_show_how_sure_they_are():
    method = {**costs().methods[0], "overhead_percent": 5.0, "overhead_percent_low": 4.0, "overhead_percent_high": 7.5}
    table = parsed(costs=Costs("cpu", 2, "float32", 20, [{**method, "stopped_by": "out of memory"}])).tables[2]
    line = dict(zip(COST_HEADINGS, table[1], strict=True))
    assert line["overhead"] == "+5.0 % +4.0 to +7.5"
    assert line["batch"] == "64 out of memory"


def test_what_was_trained_is_shown_once_with_file_and_time():
    mine = {"adapter_bytes": 5_300_000, "training_seconds": 71.26}
    rows = [row("CFG", adapter_parameters=0), *(row("agd", teacher_scale=scale, **mine) for scale in (2.0, 3.0))]
    table = parsed(rows=[*rows, row("old")]).tables[2]
    assert table[0] == list(TRAINING_HEADINGS)
    assert table[1:] == [["agd", "12,345", "2.0 %", "5.30", "71.3"], ["old", "12,345", "2.0 %", "-", "-"]]


def test_one_grid_is_shown_without_a_comparison_and_two_with_one():
    grid = Picture("CFG", "", png(), ("Bag", "Coat"), 2, 8)
    for grids, compared in (([grid], 0), ([grid, grid], 1)):
        tags = Parsed(render_page(replace(page(), grids=grids)))
        assert tags.count("figure", "compare") == compared
        assert tags.values("title") == ["Bag", "Coat"] * (len(grids) + compared)


def test_large_images_are_smoothed_and_tiny_ones_are_not():
    assert [Picture("", "", b"", (), 1, pixels).tiny for pixels in (8, 32, 256)] == [True, True, False]


def test_cfg_and_the_first_adapter_are_compared_at_first():
    full = made_up.page()
    assert full.first_pair == (1, 2)
    assert replace(full, rows=[]).first_pair == (0, 1)
    assert replace(full, grids=full.grids[1:3]).first_pair == (0, 1)
    selected = [attributes["value"] for tag, attributes in Parsed(render_page(full)).tags if "selected" in attributes]
    assert selected == ["1", "2"]


def test_grids_of_other_images_are_refused():
    grids = [Picture("", "", png(), labels, 1, 8) for labels in (("Bag",), ("Coat",))]
    with pytest.raises(InputError, match="equal labels and columns"):
        replace(page(), grids=grids)
