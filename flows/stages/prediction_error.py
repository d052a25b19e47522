"""The prediction error of one method along the guided teacher's sampling, as an artefact of its own.

Another method leaves it alone. Each artefact also holds the error of no guidance on the same latents, so it can be
read by itself.
"""

from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict

from agd_core.basics.atomic import write_json
from agd_core.evaluation.prediction_error import UNGUIDED, measure_prediction_errors
from flows.run import Run
from flows.stages.comparison import Method
from flows.stages.sample import opener
from storage.artefacts import Artefact

STAGE, VERSION = "prediction-error", 2
CURVE = "prediction_error.json"
ADAPTER = "adapter"
"""What the file calls the adapter, or whatever else is measured in its place, whatever its name is today."""


def prediction_error(run: Run, method: Method) -> Artefact:
    """Measure one method against the guided teacher at every step, at the headline's scale, sampler and steps.

    Args:
        run: `evaluate.curve_images` says how many images, one or more.
        method: an adapter, finished, or a rule that needs no training; its name is for those who watch.

    Raises:
        Stopped: between two steps, when asked to; run again to redo this curve.
    """
    config, place = run.config.sample, run.place
    alone = config.at(config.guidance_scale, config.steps, config.scheduler)
    alone = alone.model_copy(update={"images": run.config.evaluate.curve_images})
    identity = {
        "version": VERSION,
        "base_model": run.model.pipeline_digest(),
        "sample": alone.identity(),
        "prompts": run.sampled.identity(),
        "guidance": run.config.teacher_identity,
        "adapter": method.adapter and method.adapter.digest,
    } | ({"training_free": method.guidance.identity()} if method.guidance else {})
    what = f"prediction error of {method.name}"

    def work(artefact: Artefact) -> None:
        place.announce(f"{STAGE}: {method.name} at every step of {alone.images} images, scale {alone.guidance_scale:g}")
        progress, opened = place.progress(what), opener(run, method.guidance, method.adapter)
        with place.on_device(what), opened() as denoiser:
            errors = measure_prediction_errors(
                run.teacher, {ADAPTER: denoiser}, run.sampled, alone, progress, place.should_stop
            )
        write_json(errors.as_dict(), artefact.path / CURVE)

    return place.produce(STAGE, identity, work, title=f"{what}, scale {alone.guidance_scale:g}")


class StoredCurve(TypedDict):
    """What the file of an artefact of this stage holds, beside the settings."""

    points: dict[str, list[dict[str, Any]]]


def read_curve(artefact: Artefact) -> StoredCurve:
    """One artefact's content, `PredictionErrors.as_dict()` with the methods "no guidance" and "adapter"."""
    return artefact.json(CURVE, StoredCurve)


def read_curves(artefacts: Mapping[str, Artefact]) -> dict[str, Any]:
    """Several methods' content as one, by their names.

    Args:
        artefacts: one or more, measured with equal settings.
    """
    curves = {name: read_curve(artefact) for name, artefact in artefacts.items()}
    first = next(iter(curves.values()))
    points = {name: curve["points"][ADAPTER] for name, curve in curves.items()}
    return {**first, "points": {UNGUIDED: first["points"][UNGUIDED], **points}}
