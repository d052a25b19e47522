"""Trained adapters as folders to take away: OUTPUT/adapters/NAME with weights, settings, model card and numbers.

Numbers never lie beside weights that they were not measured with: they are removed before the weights are replaced.
The checksums are written last; where that was interrupted, they do not fit and nothing loads the folder.
"""

from collections.abc import Sequence
from pathlib import Path

from agd_core.basics.atomic import json_bytes
from agd_core.basics.checksums import CHECKSUMS, problems, seal
from agd_core.basics.digest import file_digest
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import read_json
from agd_core.evaluation.protocol import Protocol
from agd_core.evaluation.rows import Row
from agd_core.methods import MethodConfig
from agd_core.methods.adapter_files import FILES, WEIGHTS, read_card
from agd_core.report.model_card import README, ModelCard, render_card
from flows.published import (
    ADAPTER_FILES,
    ADAPTERS,
    METRICS_FILE,
    adapter_folder,
    note_published,
    publish_file,
    seal_adapter,
)
from flows.run import Run
from flows.stages.comparison import Compared, TrainedAdapters, methods
from storage.artefacts import Artefact


def publish_trained(run: Run, trained: TrainedAdapters, command: str) -> dict[str, Path]:
    """Write every adapter's folder; one that holds these weights with their numbers already is left alone."""
    output = run.place.output
    folders = {adapter.label: adapter_folder(output, adapter.label) for adapter, _ in trained}
    for adapter, artefact in trained:
        folder = folders[adapter.label]
        if not _holds(folder, artefact):
            (folder / METRICS_FILE).unlink(missing_ok=True)
            _publish(run, adapter, artefact, (), command)
        seal_adapter(folder)
    _note(output, trained)
    return folders


def publish_evaluated(run: Run, trained: TrainedAdapters, compared: Sequence[Compared], command: str) -> None:
    """Write every adapter's folder with its measured rows, and beside them those of all that needed no training.

    Where it is interrupted, a folder has no numbers, and the next run writes them.
    """
    output, untrained = run.place.output, [method.name for method in methods(run.config, ())]
    for adapter, artefact in trained:
        rows = [item.row for item in compared if item.row.name in (adapter.label, *untrained)]
        folder = adapter_folder(output, adapter.label)
        if not _holds(folder, artefact):
            (folder / METRICS_FILE).unlink(missing_ok=True)
        _publish(run, adapter, artefact, rows, command)
        plain = [row.as_dict() for row in rows]
        measured = seal({"rows": plain, "weights_sha256": file_digest(artefact.path / WEIGHTS)})
        publish_file(json_bytes(measured), folder / METRICS_FILE)
        seal_adapter(folder)
    _note(output, trained)


def _note(output: Path, trained: TrainedAdapters) -> None:
    note_published(output, [f"{ADAPTERS}/{adapter.label}/{CHECKSUMS}" for adapter, _ in trained])


def _holds(folder: Path, artefact: Artefact) -> bool:
    """Whether a folder is whole: these files, and the numbers that were measured with these weights.

    One of an older version has no checksums; it is whole without them.
    """
    if not all((folder / name).is_file() for name in ADAPTER_FILES):
        return False
    if (folder / CHECKSUMS).exists() and problems(folder, ADAPTER_FILES):
        return False
    if any(file_digest(folder / name) != file_digest(artefact.path / name) for name in FILES):
        return False
    return file_digest(artefact.path / WEIGHTS) == _measured_weights(folder / METRICS_FILE)


def _measured_weights(metrics: Path) -> str | None:
    """Digest of the weights that the numbers belong to; None where they are not readable."""
    try:
        found = read_json(metrics)["weights_sha256"]
    except (InputError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _publish(run: Run, method: MethodConfig, artefact: Artefact, rows: Sequence[Row], command: str) -> None:
    folder = adapter_folder(run.place.output, method.label)
    for name in FILES:
        publish_file(artefact.read(name), folder / name)
    card = _card(run, method, artefact, rows, command)
    publish_file(render_card(card).encode(), folder / README)


def _training(run: Run, method: MethodConfig) -> dict[str, str]:
    """How the adapter was trained; that it learnt on the states of guided sampling goes without saying."""
    settings = {name.replace("_", " "): f"{value}" for name, value in run.config.training_of(method).identity().items()}
    return settings if run.config.collect.states == "guided" else settings | {"states": run.states.text}


def _card(run: Run, method: MethodConfig, artefact: Artefact, rows: Sequence[Row], command: str) -> ModelCard:
    files = read_card(artefact.path)[1]
    config, sampled = run.config, run.config.sample
    return ModelCard(
        name=method.label,
        base_model=config.base_model,
        method=method,
        files=files,
        percent=100 * files.parameters / run.model.parameters,
        training=_training(run, method),
        digests={"adapter": artefact.digest},
        command=command,
        evaluate_command=command,
        steps=sampled.steps,
        guidance_scale=sampled.guidance_scales[0],
        scheduler=sampled.scheduler,
        rows=rows,
        protocol=Protocol.from_dict(rows[0].protocol).lines() if rows else {},
    )
