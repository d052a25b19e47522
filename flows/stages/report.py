"""The report: a page, metrics.json and pictures, written as an artefact and copied to the output folder."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agd_core.adapters import AdapterConfig
from agd_core.checkpoint import write_json
from agd_core.report.images import grid_png
from agd_core.report.page import Page, Picture, render_page
from agd_core.report.plots import distance_over_nfe_plot, loss_plot, over_scale_plot
from agd_core.report.rows import Row
from flows.config import PipelineConfig
from flows.stages.comparison import Compared
from flows.stages.sample import read_samples
from flows.stages.train import LOSSES
from flows.workplace import Workplace
from storage.artefacts import Artefact
from storage.atomic import write_bytes

STAGE, VERSION = "report", 1
PAGE, METRICS = "report.html", "metrics.json"
_GRID_IMAGES, _GRID_COLUMNS = 40, 10
_LIBRARIES = ("torch", "diffusers", "zarr", "numpy")

Trained = Sequence[tuple[AdapterConfig, Artefact]]


def report(
    config: PipelineConfig,
    command: str,
    trajectories: Artefact,
    adapters: Trained,
    compared: Sequence[Compared],
    place: Workplace,
) -> Artefact:
    """Write the report of a finished comparison and copy page and metrics to the output folder."""
    identity = {
        "version": VERSION,
        "config": config.model_dump(mode="json"),
        "command": command,
        "rows": [item.row for item in compared],
        "adapters": [artefact.digest for _, artefact in adapters],
        "samples": [item.samples.digest for item in compared],
    }
    artefact = place.produce(
        STAGE,
        identity,
        lambda artefact: _write(config, command, trajectories, adapters, compared, artefact, place),
        measured=[PAGE, METRICS],
        title="write the report",
    )
    for name in (PAGE, METRICS):
        write_bytes((artefact.path / name).read_bytes(), place.output / name)
    return artefact


def read_metrics(artefact: Artefact) -> dict[str, Any]:
    """The content of metrics.json."""
    metrics: dict[str, Any] = json.loads((artefact.path / METRICS).read_text(encoding="utf-8"))
    return metrics


def _write(
    config: PipelineConfig,
    command: str,
    trajectories: Artefact,
    adapters: Trained,
    compared: Sequence[Compared],
    artefact: Artefact,
    place: Workplace,
) -> None:
    place.announce(f"{STAGE}: writing {artefact.path / PAGE}")
    headline = [item for item in compared if item.row["steps"] == config.sample.steps]
    rows = [item.row for item in headline]
    curve = [item.row for item in compared if item.row["teacher_scale"] == config.sample.guidance_scales[0]]
    protocol = _protocol(config, compared)
    artefacts = _artefact_digests(trajectories, adapters)
    grids = [_grid(item) for item in headline if item.row["teacher_scale"] == config.sample.guidance_scales[0]]
    plots = _plots(rows, curve, adapters)
    for number, picture in enumerate((*grids, *plots), start=1):
        (artefact.path / f"{number:02}-{_file_name(picture.title)}.png").write_bytes(picture.png)
    metrics = {"rows": rows, "curve": curve, "protocol": protocol, "artefacts": artefacts}
    write_json(metrics, artefact.path / METRICS)
    page = Page(_title(config), _summary(rows), rows, grids, plots, protocol, artefacts, command)
    (artefact.path / PAGE).write_text(render_page(page), encoding="utf-8")


def _plots(rows: Sequence[Row], curve: Sequence[Row], adapters: Trained) -> list[Picture]:
    losses = {
        config.label: json.loads((artefact.path / LOSSES).read_text(encoding="utf-8")) for config, artefact in adapters
    }
    plots = [Picture("Training loss", "Distillation loss, a moving average over at most 50 steps.", loss_plot(losses))]
    if any(row["fd"] is not None for row in curve):
        caption = "Quality for cost: Fréchet distance over network evaluations per image, at the headline scale."
        plots.append(Picture("FD over NFE", caption, distance_over_nfe_plot(curve)))
    if len({row["teacher_scale"] for row in rows}) > 1:
        plots.append(_scale_plot(rows, "paired_mse", "Paired error over scale", "paired MSE to CFG"))
        if rows[0]["fd"] is not None:
            plots.append(_scale_plot(rows, "fd", "FD over scale", "Fréchet distance to real images"))
            plots.append(_scale_plot(rows, "accuracy", "Accuracy over scale", "class accuracy"))
    return plots


def _scale_plot(rows: Sequence[Row], value: str, title: str, label: str) -> Picture:
    return Picture(title, f"{title}, at equal noise and classes.", over_scale_plot(rows, value, label))


def _grid(item: Compared) -> Picture:
    images = read_samples(item.samples).images[:_GRID_IMAGES]
    caption = f"scale {item.row['guidance_scale']:g}, {item.row['nfe']:g} NFE"
    return Picture(item.row["name"], caption, grid_png(images, _GRID_COLUMNS))


def _protocol(config: PipelineConfig, compared: Sequence[Compared]) -> dict[str, str]:
    sampled = config.sample
    return {
        "base model": f"{config.base_model.source}, {config.base_model.dtype}",
        "images": f"{sampled.images} per row, balanced classes, seed {sampled.seed}",
        "sampler": f"{sampled.scheduler}, {sampled.steps} steps",
        "feature extractor": config.evaluate.extractor,
        "trained guidance scales": f"{config.collect.guidance_scale_min:g} to {config.collect.guidance_scale_max:g}",
        "images/s measured on": "; ".join(sorted({item.device for item in compared})),
        "versions": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
    }


def _artefact_digests(trajectories: Artefact, adapters: Trained) -> dict[str, str]:
    digests = {"trajectories": f"{trajectories.path.name} sha256 {trajectories.digest}"}
    return digests | {config.label: f"{artefact.path.name} sha256 {artefact.digest}" for config, artefact in adapters}


def _title(config: PipelineConfig) -> str:
    return f"Adapter Guidance Distillation of {Path(config.base_model.source).name}"


def _summary(rows: Sequence[Row]) -> str:
    guided = next(row for row in rows if row["method"] == "cfg")
    students = [row for row in rows if row["adapter_parameters"] and row["teacher_scale"] == guided["teacher_scale"]]
    best = min(students, key=lambda row: row["paired_mse"] or 0.0)
    text = (
        f"At guidance scale {guided['guidance_scale']:g} classifier-free guidance takes {guided['nfe']:g} network "
        f"evaluations per image; {best['name']} takes {best['nfe']:g}, "
        f"with {best['adapter_percent']:.1f} % extra parameters."
    )
    if guided["fd"] is None or best["fd"] is None:
        return text
    return f"{text} Fréchet distance: {guided['fd']:.2f} with CFG, {best['fd']:.2f} with the adapter."


def _file_name(title: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in title.lower())
