"""One night of one registered adapter: sampled and scored afresh, then compared with its earlier nights.

    OUTPUT/nights/<night>/<name>/work      what the stages make; deleted once the night is in the history
    OUTPUT/nights/<night>/<name>/          grid.png with the first images, evaluation.json with the scores
    OUTPUT/history/<name>/<night>.parquet  the scores, see `storage.history`
    OUTPUT/trends/<name>.png               every metric over all nights

A night that was interrupted goes on with what it finished; one that is in the history is never measured again.
"""

import shutil
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agd_core.basics.atomic import write_bytes, write_json
from agd_core.basics.digest import canonical_json, digest, file_digest
from agd_core.basics.errors import InputError, first_line
from agd_core.basics.safe_files import confined
from agd_core.basics.seeding import derive_seed
from agd_core.evaluation.metrics import NightVerdict
from agd_core.methods.adapter_files import WEIGHTS
from agd_core.report.images import grid_png
from flows.registry import Entry
from flows.run import Run
from flows.stages.night_scores import Sampled, of_night, sample_tonight, scores
from flows.stages.sample import VERSION as SAMPLE_VERSION
from flows.stages.sample import read_images
from flows.stages.verdicts import open_history, verdicts_of_night, write_trend
from flows.workplace import Workplace
from storage.artefacts import Artefact
from storage.history import History, MetricRecord

STAGE, VERSION = "night", 1
NIGHTS, WORK = "nights", "work"
EVALUATION, GRID = "evaluation.json", "grid.png"
_AGAIN = "-again"
_GRID_IMAGES, _GRID_COLUMNS = 40, 10
_LIBRARIES = ("agd-pipeline", "torch", "diffusers", "numpy")
_OF_ALL_METRICS = ("adapter_digest", "base_fingerprint", "protocol_digest", "seed", "finished_at")


@dataclass(frozen=True)
class Night:
    """What one night of one adapter gave."""

    name: str
    night: str
    """A date, or a date measured `again`."""
    records: tuple[MetricRecord, ...]
    """As they are in the history."""
    verdicts: dict[str, NightVerdict]
    """By metric."""
    grid: Path
    """PNG of the student's first images."""
    trend: Path
    """PNG of every metric over all nights."""

    @property
    def regressed(self) -> list[str]:
        """The metrics that left their band for the worse."""
        return [metric for metric, verdict in self.verdicts.items() if verdict.regressed]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        first = asdict(self.records[0])
        return {
            "name": self.name,
            "night": self.night,
            "regressed": self.regressed,
            "metrics": {metric: verdict.as_dict() for metric, verdict in self.verdicts.items()},
            **{key: first[key] for key in _OF_ALL_METRICS},
            "grid": str(self.grid),
            "trend": str(self.trend),
        }


def tonight() -> str:
    """Today's date here."""
    return date.today().isoformat()


def again(night: str) -> str:
    """The same night measured a second time, with other noise: tells chance from change.

    Raises:
        InputError: it is no date.
    """
    return check_night(night).removesuffix(_AGAIN) + _AGAIN


def check_night(night: str) -> str:
    """The night as the history writes it: a date, or what `again` makes of it.

    Raises:
        InputError: it is no date.
    """
    try:
        day = date.fromisoformat(night.removesuffix(_AGAIN)).isoformat()
    except ValueError as error:
        raise InputError(f"night {night!r} is no date of the form 2026-11-21") from error
    return f"{day}{_AGAIN}" if night.endswith(_AGAIN) else day


def evaluate_registered(entry: Entry, night: str, place: Workplace) -> Night:
    """Measure a registered adapter as it is now, unless that night is in its history, and judge it.

    Args:
        entry: from `flows.registry`.
        night: a date such as 2026-11-21, or `again`; it seeds the images, so every night has its own.
        place: its output folder holds the history.

    Raises:
        InputError: the adapter or its base model cannot be evaluated, or `night` is no date.
        Stopped: when asked to; run the same night again to go on.
    """
    night = check_night(night)
    history = open_history(place.output)
    folder = confined(place.output, f"{NIGHTS}/{night}/{entry.name}")
    _refuse_an_earlier_night(entry.name, night, history)
    if history.night(entry.name, night):
        place.announce(f"{STAGE}: {entry.name} {night} is in the history already")
    else:
        history.append(_measured(entry, night, folder, place))
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return _judged(entry.name, night, place.output)


def _refuse_an_earlier_night(name: str, night: str, history: History) -> None:
    """The first nights are what later ones are judged by: one that is put before them would change the verdicts.

    Raises:
        InputError: the history has a later night, and not this one.
    """
    nights = {record.night for record in history.read(name).records}
    later = max(nights, default=night)
    if night < later and night not in nights and not night.endswith(_AGAIN):
        raise InputError(f"night {night} of {name!r} comes before {later}, which is in the history already")


def _judged(name: str, night: str, output: Path) -> Night:
    records = open_history(output).read(name).records
    of_night = tuple(record for record in records if record.night == night)
    grid, trend = output / NIGHTS / night / name / GRID, write_trend(name, records, output)
    return Night(name, night, of_night, verdicts_of_night(records, night), grid, trend)


def _measured(entry: Entry, night: str, folder: Path, place: Workplace) -> list[MetricRecord]:
    """The scores of a night, which is an artefact itself: a second run waits for the first and then reads it."""
    run, seed = entry.run(place), derive_seed(entry.sample.seed, "night", night)
    protocol = protocol_of(entry, run.instruments.identity(), run.sampled.identity())
    identity = {"version": VERSION, "name": entry.name, "night": night, "seed": seed, "protocol": protocol}
    if entry.training_free:
        identity["training_free"] = [rule.identity() for rule in entry.training_free]

    def work(artefact: Artefact) -> None:
        tonight = of_night(run, seed, folder / WORK)
        sampled = sample_tonight(entry, tonight)
        write_bytes(grid_png(read_images(sampled.student, slice(_GRID_IMAGES)), _GRID_COLUMNS), artefact.path / GRID)
        common = {"night": night, **_of_all_metrics(entry, tonight, sampled), "protocol_digest": _digest(protocol)}
        rows = [common | row for row in scores(entry, tonight, sampled, run.instruments)]
        finished = {"finished_at": datetime.now(UTC).isoformat(timespec="seconds")}
        write_json([row | finished for row in rows], artefact.path / EVALUATION)

    artefact = replace(place, output=folder).produce(STAGE, identity, work, [EVALUATION])
    for name in (EVALUATION, GRID):
        write_bytes(artefact.read(name), folder / name)
    return _records(artefact)


def protocol_of(entry: Entry, instruments: dict[str, Any], prompts: str | None = None) -> dict[str, Any]:
    """Everything that shapes a score beside the adapter and the night, as plain data.

    Args:
        entry: from `flows.registry`.
        instruments: what it is measured with, see `flows.instruments.Instruments.identity`.
        prompts: sha256 of what is sampled of; None for classes.
    """
    asked = {} if prompts is None else {"prompts": prompts}
    return asked | {
        "version": SAMPLE_VERSION,
        "pipeline": entry.pipeline_digest,
        "guidance": entry.guidance.teacher_identity(entry.negative_prompt),
        "sample": entry.sample.identity(),
        "evaluate": entry.evaluate.identity(),
        "instruments": instruments,
    }


def _records(artefact: Artefact) -> list[MetricRecord]:
    rows = artefact.json(EVALUATION, list[dict[str, Any]])
    try:
        return TypeAdapter(list[MetricRecord]).validate_python(rows)
    except ValidationError as error:
        raise InputError(f"{artefact.path / EVALUATION} is not what a night writes: {first_line(error)}") from error


def _digest(protocol: dict[str, Any]) -> str:
    return digest({"night": VERSION, "protocol": protocol})


def _of_all_metrics(entry: Entry, tonight: Run, sampled: Sampled) -> dict[str, Any]:
    """What all records of a night have in common."""
    return {
        "name": entry.name,
        "adapter_digest": file_digest(sampled.adapter.path / WEIGHTS),
        "base_fingerprint": tonight.model.fingerprint,
        "seed": tonight.config.sample.seed,
        "images": entry.sample.images,
        "versions": canonical_json({library: version(library) for library in _LIBRARIES}),
    }
