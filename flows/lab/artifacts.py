"""What a person sees on a run's page: tables, image grids, loss curves, the way to the report."""

import base64
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefect.artifacts import create_markdown_artifact

from agd_core.evaluation.rows import Headline, Row
from agd_core.report.images import grid_png
from agd_core.report.plots import loss_plot
from flows.stages.sample import STAGE as SAMPLES
from flows.stages.sample import read_images
from flows.stages.train import LOSSES
from flows.stages.train import STAGE as ADAPTER
from storage.artefacts import Artefact

_HOME, _REPORTS_URL = "AGD_HOME", "AGD_REPORTS_URL"
"""Environment variables of `agd up`: the folder where flows run, and the address at which its reports are served."""
_LIMIT_BYTES = 700_000
_GRID_IMAGES, _GRID_COLUMNS = 40, 10


def show_artefact(artefact: Artefact, title: str) -> None:
    """Show what a stage made, if there is a way to look at it."""
    if way := _WAYS.get(artefact.stage):
        png = way(artefact, title)
        create_markdown_artifact(_fitting([picture(png)]), key=_key(title or artefact.path.name), description=title)


def show_results(metrics: dict[str, Any], report: Artefact, output: Path) -> None:
    """The metric table, the grids at equal noise, and the way to the report, as the artifact `results`."""
    grids = [f"### {path.stem[3:]}\n\n{picture(path.read_bytes())}" for path in sorted(report.path.glob("*.png"))]
    page = next(report.path.glob("*.html")).name
    parts = [metric_table(metrics["rows"]), report_link(output / page), *grids]
    create_markdown_artifact(_fitting(parts), key="results", description="Results of the distillation")


def metric_table(rows: list[Any]) -> str:
    """Rows of the results table in Markdown."""
    table = Headline.of([Row.model_validate(row) for row in rows])
    lines = [table.headings, ("---",) * len(table.headings), *table.lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report_link(page: Path) -> str:
    """A link where `agd up` serves reports, else the file's name; browsers follow no links to files."""
    page = page.resolve()
    served, url = Path(os.environ.get(_HOME, "")).resolve(), os.environ.get(_REPORTS_URL)
    if url and page.is_relative_to(served):
        return f"[Open the report]({url}/{quote(page.relative_to(served).as_posix())}) (`{page}`)"
    return f"Report: `{page}`"


def picture(png: bytes) -> str:
    """A PNG inside Markdown."""
    return f"![](data:image/png;base64,{base64.b64encode(png).decode()})"


def _fitting(parts: list[str]) -> str:
    """As many parts as fit; they lie in the server's database, so an artifact stays below a megabyte."""
    kept: list[str] = []
    for part in parts:
        if sum(map(len, kept)) + len(part) <= _LIMIT_BYTES:
            kept.append(part)
    left_out = len(parts) - len(kept)
    return "\n\n".join([*kept, *([f"{left_out} more in the report"] if left_out else [])])


def _losses(artefact: Artefact, title: str) -> bytes:
    return loss_plot({title: artefact.json(LOSSES, list[float])})


def _samples(artefact: Artefact, title: str) -> bytes:
    return grid_png(read_images(artefact, slice(_GRID_IMAGES)), _GRID_COLUMNS)


def _key(title: str) -> str:
    """Prefect's keys are lower-case letters, digits and dashes."""
    return "-".join(re.findall("[a-z0-9]+", title.lower()))


_WAYS: dict[str, Callable[[Artefact, str], bytes]] = {SAMPLES: _samples, ADAPTER: _losses}
