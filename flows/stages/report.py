"""The report: a page, its numbers and its pictures, written as an artefact and copied to the output folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agd_core.basics.atomic import write_bytes, write_json
from agd_core.basics.checksums import seal
from agd_core.data.subjects import Subjects
from agd_core.evaluation.comparing.against_teacher import against_teacher, teacher_beside
from agd_core.evaluation.protocol import Protocol
from agd_core.evaluation.rows import Row, plain
from agd_core.report.images import grid_png
from agd_core.report.page import Page, Picture, render_page
from flows.published import METRICS_FILE, note_published, publish_file
from flows.run import Run
from flows.stages.comparison import Compared, TrainedAdapters
from flows.stages.extras import Extras
from flows.stages.pictures import plots
from flows.stages.sample import read_images, read_labels
from flows.stages.summary import summary
from storage.artefacts import Artefact

STAGE, VERSION = "report", 8
Write = Callable[["Made", "ReportFiles", Artefact], None]
"""Tells in an artefact's folder what was made: a page and its numbers, called like these files."""
_GRID_IMAGES, _GRID_COLUMNS, _WIDEST = 40, 10, 64
_LARGE_IMAGES, _LARGE_COLUMNS = 12, 4
"""Of images wider than `_WIDEST` pixels."""


@dataclass(frozen=True)
class ReportFiles:
    """What a report is called in the output folder."""

    page: str
    metrics: str


REPORT, SWEEP = ReportFiles("report.html", METRICS_FILE), ReportFiles("sweep.html", "sweep.json")


@dataclass(frozen=True)
class Made:
    """Everything that a report tells of."""

    run: Run
    command: str
    """What a person types to repeat it."""
    trajectories: Artefact
    adapters: TrainedAdapters
    compared: Sequence[Compared]
    """Headline first."""
    extras: Extras

    @property
    def headline(self) -> list[Compared]:
        """Every method and scale with the headline's sampler and steps."""
        sampled = self.run.config.sample
        return [
            item for item in self.compared if (item.row.steps, item.row.scheduler) == (sampled.steps, sampled.scheduler)
        ]

    @property
    def at_first_scale(self) -> list[Compared]:
        """The headline's first scale: what the grids show."""
        return [item for item in self.headline if item.row.teacher_scale == self.run.config.sample.guidance_scale]

    @property
    def artefacts(self) -> dict[str, Artefact]:
        """Every artefact behind the numbers, by what it is."""
        found = {"trajectories": self.trajectories}
        found |= {f"adapter {config.label}": artefact for config, artefact in self.adapters}
        for item in self.compared:
            where = f"{item.row.name}, scale {item.row.teacher_scale:g}, {item.row.steps} "
            found[f"samples, {where}{item.row.scheduler} steps"] = item.samples
            found[f"evaluation, {where}{item.row.scheduler} steps"] = item.evaluation
        return found | self.extras.artefacts

    def identity(self) -> dict[str, Any]:
        """What shapes the report, as plain data."""
        return {
            "version": VERSION,
            "config": self.run.config.model_dump(mode="json"),
            "command": self.command,
            "artefacts": {name: artefact.digest for name, artefact in self.artefacts.items()},
        }


def report(made: Made, files: ReportFiles, write: Write | None = None) -> Artefact:
    """Write the report of a finished comparison and copy page and numbers to the output folder.

    Args:
        made: what it tells of.
        files: what it is called.
        write: tells it, in an artefact's folder; none: the report of one training of every method.
    """
    place, tell = made.run.place, write or _write
    artefact = place.produce(
        STAGE,
        {**made.identity(), "files": vars(files)},
        lambda artefact: tell(made, files, artefact),
        measured=[files.page, files.metrics],
        title=f"write {files.page}",
    )
    for name in (files.page, files.metrics):
        publish_file(artefact.read(name), place.output / name)
    note_published(place.output, (files.page, files.metrics))
    return artefact


def read_metrics(artefact: Artefact, files: ReportFiles = REPORT) -> dict[str, Any]:
    """The numbers of a report."""
    return artefact.json(files.metrics, dict[str, Any])


def _write(made: Made, files: ReportFiles, artefact: Artefact) -> None:
    made.run.place.announce(f"{STAGE}: writing {artefact.path / files.page}")
    rows, everything = [item.row for item in made.headline], [item.row for item in made.compared]
    curve = [row for row in everything if row.teacher_scale == made.run.config.sample.guidance_scale]
    grids = [grid_of(item, made.run.sampled) for item in made.at_first_scale]
    drawn = plots(rows, curve, made.adapters, made.extras)
    for number, picture in enumerate((*grids, *drawn), start=1):
        write_bytes(picture.png, artefact.path / f"{number:02}-{file_name(picture.title)}.png")
    digests = digests_of(made)
    protocol, notes = protocol_of(made), notes_of(rows[0].protocol, made.run.instruments.remarks)
    metrics = {
        "rows": with_verdicts(rows, everything),
        "curve": with_verdicts(curve, everything),
        "all_rows": with_verdicts(everything, everything),
        "protocol": protocol,
        "notes": notes,
        "artefacts": digests,
        "command": made.command,
        **made.extras.as_dict(made.run.config.sample.steps),
    }
    write_json(seal(plain(metrics)), artefact.path / files.metrics)
    page = Page(
        title=f"Adapter Guidance Distillation of {Path(made.run.config.base_model.source).name}",
        summary=summary([item.row for item in made.at_first_scale]),
        rows=rows,
        grids=grids,
        plots=drawn,
        protocol=protocol,
        artefacts=digests,
        command=made.command,
        all_rows=everything,
        costs=made.extras.costs(made.run.config.sample.steps),
        notes=notes,
    )
    write_bytes(render_page(page).encode(), artefact.path / files.page)


def with_verdicts(rows: Sequence[Row], everything: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows with their verdicts against the teacher at the same point."""
    return [row.as_dict() | {"verdicts": against_teacher(row, teacher_beside(row, everything))} for row in rows]


def digests_of(made: Made) -> dict[str, str]:
    """Every artefact behind the numbers with what it holds, by what it is."""
    return {name: f"{item.path.name} sha256 {item.digest}" for name, item in made.artefacts.items()}


def grid_of(item: Compared, subjects: Subjects, title: str = "") -> Picture:
    """The first images of a sample set, fewer of large ones; it is called as its row is, unless it has a title."""
    images = read_images(item.samples, slice(_GRID_IMAGES))
    height, width = images.shape[1:3]
    small = max(height, width) <= _WIDEST
    count, columns = (_GRID_IMAGES, _GRID_COLUMNS) if small else (_LARGE_IMAGES, _LARGE_COLUMNS)
    caption = f"scale {item.row.guidance_scale:g}, {item.row.nfe:g} NFE"
    labels = subjects.texts(read_labels(item.samples)[:count].tolist())
    png = grid_png(images[:count], columns, 2 if small else 1, labels if subjects.prompts else ())
    return Picture(title or item.row.name, caption, png, labels, columns, max(height, width))


def protocol_of(made: Made) -> dict[str, str]:
    """How the headline's numbers were made, in words."""
    collected = made.run.config.collect
    return {
        **Protocol.from_dict(made.at_first_scale[0].row.protocol).lines(),
        "trained guidance scales": f"{collected.guidance_scale_min:g} to {collected.guidance_scale_max:g}",
        "images/s measured on": "; ".join(sorted({item.device for item in made.compared})),
    }


def notes_of(protocol: Mapping[str, Any], remarks: Sequence[str]) -> list[str]:
    """What must be known before the numbers are believed."""
    if protocol["extractor"] == "none" or protocol["distance"] == "FID":
        return [*remarks]
    return [
        *remarks,
        f"{protocol['distance']} is measured in the features of {protocol['extractor']}: it is no FID, and is not to "
        "be compared with published ones.",
    ]


def file_name(title: str) -> str:
    """A picture's, without its number."""
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
