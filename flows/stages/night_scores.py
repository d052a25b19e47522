"""What a night measures: the student and the guided teacher from the same noise, every score with a standard error."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from agd_core.basics.atomic import write_bytes
from agd_core.basics.checksums import require_intact
from agd_core.basics.safe_files import read_bytes
from agd_core.evaluation.evaluator import evaluate_samples
from agd_core.evaluation.metrics import METRICS, Measured, quantities
from agd_core.methods.adapter_files import CONFIG, WEIGHTS
from agd_core.methods.adapter_weights import MOST_BYTES
from flows.instruments import Instruments
from flows.registry import Entry
from flows.run import Run
from flows.stages.evaluate import LookedAt
from flows.stages.sample import Cell, read_nfe, read_sampling_cost, sample
from flows.stages.verdicts import OF_TEACHER
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


def of_night(run: Run, seed: int, folder: Path) -> Run:
    """The same with the seed of a night, in a folder of its own."""
    sample = run.config.sample.model_copy(update={"seed": seed})
    config, place = run.config.model_copy(update={"sample": sample}), replace(run.place, output=folder)
    return Run(config, place, run.model)


def sample_tonight(entry: Entry, tonight: Run) -> Sampled:
    """Sample student and teacher; what this night's folder holds already is reused.

    Raises:
        Stopped: when asked to; run again to go on.
    """
    point = (entry.guidance_scale, entry.sample.steps, entry.sample.scheduler)
    adapter = _as_it_is_now(Path(entry.folder), tonight.place)
    guided = sample(tonight, Cell(*point, guidance=entry.guidance), entry.guidance.label)
    return Sampled(adapter, sample(tonight, Cell(*point, adapter=adapter), entry.name), guided)


def scores(entry: Entry, tonight: Run, sampled: Sampled, instruments: Instruments) -> Iterator[dict[str, Any]]:
    """Every metric of student and teacher, as the part of a `MetricRecord` that differs between them."""
    headline = tuple(name for name, metric in METRICS.items() if any(found.headline for found in metric.quantities))
    config = entry.evaluate.model_copy(update={"metrics": headline})
    student, guided = (
        LookedAt.by(instruments, samples, tonight.sampled, tonight.place, entry.name).seen
        for samples in (sampled.student, sampled.guided)
    )
    rows = ((sampled.student, student, ""), (sampled.guided, guided, OF_TEACHER))
    for artefact, seen, prefix in rows:
        measured = evaluate_samples(Measured(seen, guided, instruments.reference), config)
        for name in nightly_names(prefix):
            if score := measured.get(name.removeprefix(prefix)):
                value = math.nan if score.value is None else score.value
                known = {"value": value, "standard_error": score.standard_error or 0.0, "better": score.better}
                yield {"metric": name, **known, **_cost(artefact)}


def nightly_names(prefix: str = "") -> list[str]:
    """What the history calls a night's numbers; the teacher's paired ones say nothing."""
    headline = [found for found in quantities().values() if found.headline]
    return [prefix + found.name for found in headline if not (prefix and found.paired)]


def _cost(samples: Artefact) -> dict[str, Any]:
    cost = read_sampling_cost(samples)
    return {"nfe": read_nfe(samples), "seconds": cost["denoising_seconds"], "device": cost["device"]}


def _as_it_is_now(folder: Path, place: Workplace) -> Artefact:
    """A copy of the adapter: whoever replaces it in the middle of a night gets another copy and not half of each."""
    require_intact(folder, (WEIGHTS, CONFIG), MOST_BYTES)
    files = {name: read_bytes(folder / name, MOST_BYTES) for name in (WEIGHTS, CONFIG)}

    def work(artefact: Artefact) -> None:
        for name, data in files.items():
            write_bytes(data, artefact.path / name)

    return place.produce(_COPY, {"files": {name: sha256(data).hexdigest() for name, data in files.items()}}, work)
