"""The HTML report: one file, no network, readable on a phone, light and dark, and without JavaScript."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from agd_core.basics.errors import InputError
from agd_core.evaluation import rows
from agd_core.evaluation.rows import Row
from agd_core.report import costs
from agd_core.report.columns import Table, explained, tables, warned
from agd_core.report.costs import Costs

_HERE = Path(__file__).parent
_TINY_PIXELS = 96
"""Images up to this side are enlarged without smoothing."""


@dataclass(frozen=True)
class Picture:
    """A PNG with the words around it: a plot, or the images of one method as a grid."""

    title: str
    caption: str
    png: bytes
    labels: Sequence[str] = ()
    """Of a grid: class name or prompt of every image, row by row."""
    columns: int = 1
    """Of a grid: images side by side."""
    image_pixels: int = 0
    """Of a grid: side of one image before it was enlarged."""

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def tiny(self) -> bool:
        """Whether its images are so small that single pixels are worth seeing."""
        return self.image_pixels <= _TINY_PIXELS


@dataclass(frozen=True)
class Page:
    """Everything the report shows."""

    title: str
    summary: str
    """The verdict, one or two sentences in plain words."""
    rows: Sequence[Row]
    """The headline table."""
    grids: Sequence[Picture]
    """Of the same noise and classes, image by image."""
    plots: Sequence[Picture]
    protocol: Mapping[str, str]
    artefacts: Mapping[str, str]
    """What the report was made from: digests by name."""
    command: str
    """What a person types to repeat everything."""
    all_rows: Sequence[Row] = ()
    """Every cell of the sweep, for the full tables; none given: the headline's."""
    took: Table | None = None
    """What every method took to be trained and takes per image; for reports that compare many."""
    costs: Costs | None = None
    """None where nothing was measured."""
    notes: Sequence[str] = ()
    """What is random-weight, unverified or otherwise to be known before anything is believed."""
    warnings: Sequence[str] = ()
    """Beside the warnings that numbers carry themselves."""

    def __post_init__(self) -> None:
        if len({(tuple(grid.labels), grid.columns) for grid in self.grids}) > 1:
            raise InputError("the report compares grids image by image: all need equal labels and columns")

    @property
    def measured_rows(self) -> Sequence[Row]:
        """Every row that the page shows."""
        return self.all_rows or self.rows

    @property
    def first_pair(self) -> tuple[int, int]:
        """The two grids that are compared at first: the teacher and the first adapter if they are there."""
        titles = [grid.title for grid in self.grids]
        guided = [row.name for row in self.rows if row.is_teacher]
        students = [row.name for row in self.rows if row.adapter_parameters]
        first = next((titles.index(name) for name in guided if name in titles), 0)
        second = next((titles.index(name) for name in students if name in titles), int(first == 0))
        return first, second


def render_page(page: Page) -> str:
    """The page as HTML; every text is escaped, and its policy lets no script run but its own and nothing be fetched."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    script = _own("viewer.js")
    template = environment.from_string(_own("report.html.jinja"))
    return template.render(
        page=page,
        headline=rows.Headline.of(page.rows),
        tables=tables(page.measured_rows),
        meanings=explained(page.measured_rows),
        warnings=warned(page.measured_rows) | dict.fromkeys(page.warnings, ""),
        mark=rows.WARNED,
        cost_headings=costs.COST_HEADINGS,
        training_headings=costs.TRAINING_HEADINGS,
        trained=() if page.took else costs.training_lines(page.measured_rows),
        style=Markup(_own("style.css")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
