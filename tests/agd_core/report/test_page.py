import base64
import io
from html.parser import HTMLParser

import pytest
from PIL import Image

from agd_core.report.page import Page, Picture, render_page
from agd_core.report.rows import HEADINGS

ATTACK = "<script>alert(1)</script>\"'><img onerror=x src=http://evil>&amp;"


class Parsed(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.cells = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_data(self, data):
        self.texts.append(data)
        if self.tags and self.tags[-1][0] in {"td", "th", "code"} and self.cells:
            self.cells[-1] += data.strip()

    def values(self, *names):
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in names]


def row(name, **changes):
    values = {"name": name, "method": "none", "guidance_scale": 3.0, "steps": 20, "teacher_scale": 3.0, "nfe": 20.0}
    values |= {"fd": 12.345, "fd_low": 11.0, "fd_high": 13.5, "accuracy": 0.875, "paired_mse": 0.0123}
    return values | {"images_per_second": 41.26, "adapter_parameters": 12345, "adapter_percent": 2.04} | changes


def png():
    buffer = io.BytesIO()
    Image.new("RGB", (2, 3), "red").save(buffer, "PNG")
    return buffer.getvalue()


def page(text="plain", rows=None):
    pictures = [Picture(text, text, png())]
    rows = [row(text)] if rows is None else rows
    return Page(text, text, rows, pictures, pictures, {text: text}, {text: text}, text)


@pytest.mark.parametrize("text", ["plain", ATTACK])
def test_the_page_needs_nothing_from_outside(text):
    html = render_page(page(text))
    parsed = Parsed(html)
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "object", "embed", "base", "form", "a"}
    sources = parsed.values("src", "href", "srcset", "action", "data", "poster")
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_every_text_is_shown_as_text():
    parsed = Parsed(render_page(page(ATTACK)))
    shown = "".join(parsed.texts)
    assert shown.count(ATTACK) == 1 + 2 + 1 + 2 + 1 + 2 + 2 + 1
    assert parsed.values("alt") == [ATTACK, ATTACK]
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]


def test_pictures_are_inside_byte_for_byte():
    for source in Parsed(render_page(page())).values("src"):
        assert base64.b64decode(source.partition(",")[2]) == png()


def test_every_row_and_heading_is_in_the_table():
    names = [f"method number {number}" for number in range(17)]
    cells = Parsed(render_page(page(rows=[row(name) for name in names]))).cells
    assert cells[: len(HEADINGS)] == list(HEADINGS)
    assert cells[len(HEADINGS) : 18 * len(HEADINGS) : len(HEADINGS)] == names


def test_a_row_shows_what_was_measured():
    cells = Parsed(render_page(page(rows=[row("agd")]))).cells[len(HEADINGS) : 2 * len(HEADINGS)]
    assert cells == ["agd", "3", "20", "12.35 (11.00 to 13.50)", "87.5%", "0.0123", "41.3", "12,345 (2.0 %)"]


def test_a_row_shows_a_dash_where_nothing_was_measured():
    nothing = {"fd": None, "fd_low": None, "fd_high": None, "accuracy": None, "paired_mse": None}
    plain = row("none", adapter_parameters=0, adapter_percent=0.0, **nothing)
    cells = Parsed(render_page(page(rows=[plain]))).cells[len(HEADINGS) : 2 * len(HEADINGS)]
    assert cells == ["none", "3", "20", "-", "-", "-", "41.3", "-"]


def test_a_measured_zero_is_not_a_dash():
    cells = Parsed(render_page(page(rows=[row("teacher", paired_mse=0.0, accuracy=0.0)]))).cells
    assert cells[len(HEADINGS) + 4 : len(HEADINGS) + 6] == ["0.0%", "0.0000"]


def test_protocol_artefacts_and_command_are_shown():
    full = Page("t", "s", [], [], [], {"images": "1,000"}, {"adapter": "ab12"}, "agd distill fashion-dit")
    parsed = Parsed(render_page(full))
    assert parsed.cells[len(HEADINGS) :] == ["images", "1,000", "adapter", "ab12"]
    assert "agd distill fashion-dit" in parsed.texts
