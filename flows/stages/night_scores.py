"""What a night measures: student, teacher and rules without training, from the same noise, with standard errors."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from agd_core.basics.atomic import write_bytes
from agd_core.basics.checksums import require_intact
from agd_core.basics.safe_files import read_bytes
from agd_core.evaluation.evaluator import evaluate_samples
from agd_core.evaluation.metrics import METRICS, Measured, Seen, quantities
from agd_core.methods.adapter_files import CONFIG, WEIGHTS
from agd_core.methods.adapter_weights import MOST_BYTES
from flows.instruments import Instruments
from flows.registry import Entry
from flows.run import Run
from flows.stages.evaluate import LookedAt
from flows.stages.sample import Cell, read_nfe, read_sampling_cost, sample
from flows.stages.verdicts import OF_TEACHER, prefix_of
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
    sparing: Mapping[str, Artefact]
    """So is what rules without training give, by their labels."""


def of_night(run: Run, seed: int, folder: Path) -> Run:
    """The same with the seed of a night, in a folder of its own."""
    sample = run.config.sample.model_copy(update={"seed": seed})
    config, place = run.config.model_copy(update={"sample": sample}), replace(run.place, output=folder)
    return Run(config, place, run.model)


def sample_tonight(entry: Entry, tonight: Run) -> Sampled:
    """Sample student, teacher and what spares its passes; what this night's folder holds already is reused.

    Raises:
        Stopped: when asked to; run again to go on.
    """
    point = (entry.guidance_scale, entry.sample.steps, entry.sample.scheduler)
    adapter = _as_it_is_now(Path(entry.folder), tonight.place)
    guided = sample(tonight, Cell(*point, guidance=entry.guidance), entry.guidance.label)
    sparing = {rule.label: sample(tonight, Cell(*point, guidance=rule), rule.label) for rule in entry.training_free}
    return Sampled(adapter, sample(tonight, Cell(*point, adapter=adapter), entry.name), guided, sparing)


def scores(entry: Entry, tonight: Run, sampled: Sampled, instruments: Instruments) -> Iterator[dict[str, Any]]:
    """Every metric of all that was sampled, as the part of a `MetricRecord` that differs between them."""
    headline = tuple(name for name, metric in METRICS.items() if any(found.headline for found in metric.quantities))
    config = entry.evaluate.model_copy(update={"metrics": headline})
    rows = {"": sampled.student, OF_TEACHER: sampled.guided}
    rows |= {prefix_of(label): artefact for label, artefact in sampled.sparing.items()}
    guided = _seen(entry, tonight, sampled.guided, instruments)
    for prefix, artefact in rows.items():
        seen = guided if prefix == OF_TEACHER else _seen(entry, tonight, artefact, instruments)
        measured = evaluate_samples(Measured(seen, guided, instruments.reference), config)
        for name in nightly_names(prefix):
            if score := measured.get(name.removeprefix(prefix)):
                value = math.nan if score.value is None else score.value
                known = {"value": value, "standard_error": score.standard_error or 0.0, "better": score.better}
                yield {"metric": name, **known, **_cost(artefact)}


def nightly_names(prefix: str = "") -> list[str]:
    """What the history calls a night's numbers; the teacher's paired ones say nothing."""
    headline = [found for found in quantities().values() if found.headline]
    return [prefix + found.name for found in headline if not (prefix == OF_TEACHER and found.paired)]


def _seen(entry: Entry, tonight: Run, samples: Artefact, instruments: Instruments) -> Seen:
    return LookedAt.by(instruments, samples, tonight.sampled, tonight.place, entry.name).seen


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
