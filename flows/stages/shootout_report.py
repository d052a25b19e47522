"""The shoot-out's report: a page and its numbers, means over the seeds with every seed's own numbers beside them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agd_core.basics.atomic import write_bytes, write_json
from agd_core.basics.checksums import seal
from agd_core.evaluation.metrics.distance import FD
from agd_core.evaluation.relative_error import RELATIVE_ERROR
from agd_core.evaluation.rows import plain
from agd_core.report.page import Page, Picture, render_page
from agd_core.report.plots import over_scale_plot
from agd_core.report.shootout import Contest, took
from agd_core.report.shootout_verdict import against_unguided, summary
from flows.stages.report import Made, ReportFiles, digests_of, file_name, grid_of, notes_of, protocol_of, with_verdicts
from storage.artefacts import Artefact

_SEEDS = (
    "What was trained stands with its mean over the seeds. Its interval adds two errors as squares: that of sampling "
    "so many images, and that of so few seeds (Student's t); the noise of the images is the same for all.",
    "A training step was timed with all methods taking turns; training seconds are those of the trainings themselves, "
    "under whatever else the machine did.",
)


def write_shootout(contest: Contest, made: Made, files: ReportFiles, artefact: Artefact) -> None:
    """Write page, numbers and pictures into the artefact's folder."""
    made.run.place.announce(f"report: writing {artefact.path / files.page}")
    pictures = list(_grids(contest, made)), list(_plots(contest))
    for number, picture in enumerate((*pictures[0], *pictures[1]), start=1):
        write_bytes(picture.png, artefact.path / f"{number:02}-{file_name(picture.title)}.png")
    numbers = _numbers(contest, made)
    write_json(seal(plain(numbers)), artefact.path / files.metrics)
    write_bytes(render_page(_page(contest, made, numbers, pictures)).encode(), artefact.path / files.page)


def _numbers(contest: Contest, made: Made) -> dict[str, Any]:
    """Everything as plain data."""
    notes = notes_of(contest.rows[0].protocol, made.run.instruments.remarks)
    return {
        "rows": with_verdicts([contestant.rows[0] for contestant in contest.contestants], contest.rows),
        "all_rows": with_verdicts(contest.rows, contest.rows),
        "contestants": [contestant.as_dict() for contestant in contest.contestants],
        "against_no_guidance": against_unguided(contest),
        "runs": [item.row.as_dict() for item in made.compared if item.row.adapter_parameters],
        "collected": list(made.run.config.collect.guidance_range),
        "protocol": protocol_of(made),
        "notes": [*notes, *_SEEDS],
        "artefacts": digests_of(made),
        "command": made.command,
        **made.extras.as_dict(made.run.config.sample.steps),
    }


def _page(
    contest: Contest, made: Made, numbers: dict[str, Any], pictures: tuple[Sequence[Picture], Sequence[Picture]]
) -> Page:
    config = made.run.config
    return Page(
        title=f"Adapter Guidance Distillation of {Path(config.base_model.source).name}: the shoot-out",
        summary=summary(contest, config.collect.guidance_range),
        rows=[contestant.rows[0] for contestant in contest.contestants],
        grids=pictures[0],
        plots=pictures[1],
        protocol=numbers["protocol"],
        artefacts=numbers["artefacts"],
        command=made.command,
        all_rows=contest.rows,
        took=took(contest),
        costs=made.extras.costs(config.sample.steps),
        notes=numbers["notes"],
    )


def _grids(contest: Contest, made: Made) -> Iterator[Picture]:
    """Every contestant's images at the headline's scale, of what was trained those of the first seed."""
    shown = {item.row.name: item for item in made.at_first_scale}
    for contestant in contest.contestants:
        yield grid_of(shown[contestant.pictured], made.run.sampled, contestant.name)


def _plots(contest: Contest) -> Iterator[Picture]:
    """Paired error and distance over the guidance scale, a plot for every budget of training."""
    wanted = {RELATIVE_ERROR: "paired error, share of no guidance", FD.name: FD.in_words}
    for name, words in wanted.items():
        for budget, contestants in contest.budgets.items():
            rows = [
                row
                for contestant in (contest.unguided, contest.teacher, *contestants, *contest.spared)
                for row in contestant.rows
            ]
            if len({row.teacher_scale for row in rows}) > 1 and any(name in row.scores for row in rows):
                caption = f"{words} over the guidance scale; bars are 95 % intervals. All from the same noise."
                yield Picture(f"{words}, {budget}", caption, over_scale_plot(rows, name, words))
