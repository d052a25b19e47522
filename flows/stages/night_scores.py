"""What a night measures: the student and the guided teacher from the same noise, every score with a standard error."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from agd_core.adapter_files import CONFIG, WEIGHTS
from agd_core.base_models import BaseModel
from agd_core.metrics import (
    EXTRACTORS,
    FeatureStatistics,
    accuracy_standard_error,
    distance_standard_error,
    frechet_distance,
    paired_error,
)
from agd_core.metrics.regression import Better
from flows.registry import Entry
from flows.stages.comparison import CFG
from flows.stages.sample import COST, Cell, read_samples, sample
from flows.workplace import Workplace
from storage.artefacts import Artefact

_COPY = "adapter-copy"


@dataclass(frozen=True)
class Sampled:
    """What was sampled in a night."""

    adapter: Artefact
    """The adapter's two files as they were."""
    student: Artefact
    guided: Artefact
    """The guided teacher, from the same noise and classes."""


def sample_tonight(entry: Entry, seed: int, base_model: BaseModel, place: Workplace) -> Sampled:
    """Sample student and teacher; what this night's folder holds already is reused.

    Raises:
        Stopped: when asked to; run again to go on.
    """
    config = entry.sample.model_copy(update={"seed": seed})
    scale, steps = entry.guidance_scale, config.steps
    adapter = _as_it_is_now(Path(entry.folder), place)
    guided = sample(config, Cell(scale, steps, guidance=entry.guidance), CFG.name, base_model, place)
    student = sample(config, Cell(scale, steps, adapter=adapter), entry.name, base_model, place)
    return Sampled(adapter, student, guided)


def scores(entry: Entry, sampled: Sampled, place: Workplace) -> Iterator[dict[str, Any]]:
    """Every metric of student and teacher, as the part of a `MetricRecord` that differs between them."""
    yield from _quality(entry, sampled.student, "", place)
    paired = paired_error(read_samples(sampled.student).latents, read_samples(sampled.guided).latents)
    yield _score("paired_mse", *paired, "lower", sampled.student)
    yield from _quality(entry, sampled.guided, "teacher_", place)


def _quality(entry: Entry, samples: Artefact, prefix: str, place: Workplace) -> Iterator[dict[str, Any]]:
    """Distance and accuracy; nothing without an extractor to judge them."""
    config, sampled = entry.evaluate, read_samples(samples)
    if config.extractor not in EXTRACTORS:
        return
    with place.on_device(f"features of {len(sampled.images)} images"):
        extractor = EXTRACTORS[config.extractor](place.device)
        features, classes = extractor.extract(sampled.images)
    reference, labels = extractor.reference(), sampled.labels
    distance = frechet_distance(reference, FeatureStatistics.of(features))
    error = distance_standard_error(features, labels, reference, config.bootstrap_resamples, config.seed)
    yield _score(f"{prefix}fd", distance, error, "lower", samples)
    accuracy = float((classes == labels).double().mean())
    error = accuracy_standard_error(accuracy, len(labels))
    yield _score(f"{prefix}accuracy", accuracy, error, "higher", samples)


def _score(metric: str, value: float, standard_error: float, better: Better, samples: Artefact) -> dict[str, Any]:
    score = {"metric": metric, "value": value, "standard_error": standard_error, "better": better}
    return score | _cost(samples)


def _cost(samples: Artefact) -> dict[str, Any]:
    cost = json.loads((samples.path / COST).read_text(encoding="utf-8"))
    return {"nfe": read_samples(samples).nfe, "seconds": cost["denoising_seconds"], "device": cost["device"]}


def _as_it_is_now(folder: Path, place: Workplace) -> Artefact:
    """A copy of the adapter: whoever replaces it in the middle of a night gets another copy and not half of each."""
    files = {name: (folder / name).read_bytes() for name in (WEIGHTS, CONFIG)}

    def work(artefact: Artefact) -> None:
        for name, data in files.items():
            (artefact.path / name).write_bytes(data)

    return place.produce(_COPY, {"files": {name: sha256(data).hexdigest() for name, data in files.items()}}, work)
