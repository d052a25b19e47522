"""Stages 3 and 4 for every method, scale and step count of a configuration: the rows of the results table."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agd_core.adapter_files import read_card
from agd_core.adapters import AdapterConfig
from agd_core.base_models import BaseModel
from agd_core.checkpoint import load_tensors
from agd_core.report.rows import Row
from flows.config import PipelineConfig
from flows.stages.evaluate import evaluate, read_evaluation
from flows.stages.sample import COST, SAMPLES, Cell, sample
from flows.workplace import Workplace
from storage.artefacts import Artefact


@dataclass(frozen=True)
class Method:
    """One way to sample: bare, guided, or with an adapter."""

    name: str
    kind: str
    adapter: Artefact | None = None
    parameters: int = 0


UNGUIDED = Method("no guidance", "none")
CFG = Method("CFG", "cfg")


@dataclass(frozen=True)
class Compared:
    """One row with the artefacts behind it."""

    row: Row
    method: Method
    device: str
    """Where its images per second were measured."""
    samples: Artefact
    evaluation: Artefact


def methods(adapters: Sequence[tuple[AdapterConfig, Artefact]]) -> list[Method]:
    """No guidance, CFG, then every adapter."""
    trained = [Method(config.label, config.method, artefact, _parameters(artefact)) for config, artefact in adapters]
    return [UNGUIDED, CFG, *trained]


def compare(
    config: PipelineConfig, base_model: BaseModel, adapters: Sequence[tuple[AdapterConfig, Artefact]], place: Workplace
) -> list[Compared]:
    """Sample and evaluate every cell; cells that are there already are reused."""
    compared = []
    for scale, steps in points(config):
        guided = sample(config.sample, Cell(scale, steps, config.guidance), CFG.name, base_model, place)
        for method in methods(adapters):
            compared.append(_compare_one(config, base_model, method, scale, steps, guided, place))
    return compared


def points(config: PipelineConfig) -> Iterator[tuple[float, int]]:
    """(guidance scale, steps): every scale at the headline steps, then the curve's steps at the headline scale."""
    for scale in config.sample.guidance_scales:
        yield scale, config.sample.steps
    for steps in config.sample.curve_steps:
        yield config.sample.guidance_scales[0], steps


def make_cell(config: PipelineConfig, method: Method, scale: float, steps: int) -> Cell:
    """The sample set of one method at one point."""
    return Cell(scale, steps, config.guidance if method is CFG else None, method.adapter)


def _compare_one(
    config: PipelineConfig,
    base_model: BaseModel,
    method: Method,
    scale: float,
    steps: int,
    guided: Artefact,
    place: Workplace,
) -> Compared:
    cell = make_cell(config, method, scale, steps)
    samples = guided if cell.guidance else sample(config.sample, cell, method.name, base_model, place)
    what = f"{method.name}, scale {scale:g}, {steps} steps"
    evaluation = evaluate(config.evaluate, samples, guided, place, what)
    cost = json.loads((samples.path / COST).read_text(encoding="utf-8"))
    nfe = float(load_tensors(samples.path / SAMPLES)[0]["nfe"])
    row: Row = {
        "name": method.name,
        "method": method.kind,
        "guidance_scale": cell.identity()["guidance_scale"],
        "steps": steps,
        "teacher_scale": scale,
        "nfe": nfe,
        **read_evaluation(evaluation),  # type: ignore[typeddict-item]
        "images_per_second": cost["images"] / cost["denoising_seconds"],
        "adapter_parameters": method.parameters,
        "adapter_percent": 100 * method.parameters / base_model.parameters,
    }
    return Compared(row, method, cost["device"], samples, evaluation)


def _parameters(adapter: Artefact) -> int:
    return read_card(adapter.path)[1].parameters


def every_cell(config: PipelineConfig, adapters: Sequence[tuple[AdapterConfig, Artefact]]) -> list[tuple[Method, Cell]]:
    """Every sample set of a configuration."""
    return [
        (method, make_cell(config, method, scale, steps))
        for scale, steps in points(config)
        for method in methods(adapters)
    ]


def sample_all(
    config: PipelineConfig, base_model: BaseModel, adapters: Sequence[tuple[AdapterConfig, Artefact]], place: Workplace
) -> dict[str, str]:
    """Sample every cell without evaluating; folders by method, scale and steps."""
    return {
        f"{method.name}, scale {cell.guidance_scale:g}, {cell.steps} steps": str(
            sample(config.sample, cell, method.name, base_model, place).path
        )
        for method, cell in every_cell(config, adapters)
    }
