"""The HTML report: one file, no network, readable on a phone, light and dark."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from agd_core.report.rows import HEADINGS, Row, cells

_TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass(frozen=True)
class Picture:
    """A PNG with the words around it."""

    title: str
    caption: str
    png: bytes

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class Page:
    """Everything the report shows."""

    title: str
    summary: str
    rows: Sequence[Row]
    grids: Sequence[Picture]
    plots: Sequence[Picture]
    protocol: Mapping[str, str]
    artefacts: Mapping[str, str]
    command: str


def render_page(page: Page) -> str:
    """The page as HTML; every text is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(page=page, headings=HEADINGS, table=[cells(row) for row in page.rows])
