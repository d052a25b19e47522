"""Stage 4: the quality of one sample set, as a small JSON artefact."""

import json
from typing import Any

from agd_core.base_models import BaseModel
from agd_core.checkpoint import write_json
from agd_core.errors import InputError
from agd_core.evaluator import EvaluateConfig, evaluate_samples
from agd_core.metrics import EXTRACTORS, FeatureExtractor
from flows.stages.sample import read_samples
from flows.workplace import Workplace
from storage.artefacts import Artefact

STAGE, VERSION = "evaluation", 1
EVALUATION = "evaluation.json"


def evaluate(config: EvaluateConfig, samples: Artefact, guided: Artefact, place: Workplace) -> Artefact:
    """Measure one sample set against the real data and against the guided teacher's samples of the same noise."""
    extractor = _extractor(config, place)
    identity = {
        "version": VERSION,
        "samples": samples.digest,
        "guided": guided.digest,
        "evaluate": config.identity(),
        "extractor": extractor.identity() if extractor else None,
    }

    def work(artefact: Artefact) -> None:
        evaluation = evaluate_samples(read_samples(samples), read_samples(guided).latents, extractor, config)
        write_json(evaluation.as_dict(), artefact.path / EVALUATION)

    return place.produce(STAGE, identity, work)


def read_evaluation(artefact: Artefact) -> dict[str, Any]:
    """The measured values of a finished evaluation."""
    values: dict[str, Any] = json.loads((artefact.path / EVALUATION).read_text(encoding="utf-8"))
    return values


def check_extractor(config: EvaluateConfig, base_model: BaseModel) -> None:
    """Refuse an extractor that knows other classes than the base model.

    Raises:
        InputError: the extractor is asked to judge classes that it was not trained on.
    """
    extractor = EXTRACTORS.get(config.extractor)
    if extractor and extractor.class_names != base_model.class_names:
        raise InputError(
            f"evaluate.extractor {config.extractor!r} knows {', '.join(extractor.class_names[:3])}, ... only; this "
            f"base model has {len(base_model.class_names)} other classes; set evaluate.extractor=none"
        )


def _extractor(config: EvaluateConfig, place: Workplace) -> FeatureExtractor | None:
    extractor = EXTRACTORS.get(config.extractor)
    return extractor(place.device) if extractor else None
