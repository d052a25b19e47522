"""Stage 4: the quality of one sample set, as a small JSON artefact."""

import json
from typing import Any

from agd_core.base_models import BaseModel
from agd_core.checkpoint import write_json
from agd_core.errors import InputError
from agd_core.evaluator import EvaluateConfig, SampleFeatures, evaluate_samples
from agd_core.metrics import EXTRACTORS, FeatureExtractor
from agd_core.sampling import SampleSet
from flows.stages.sample import read_samples
from flows.workplace import Workplace
from storage.artefacts import Artefact

STAGE, VERSION = "evaluation", 1
EVALUATION = "evaluation.json"


def evaluate(
    config: EvaluateConfig, samples: Artefact, guided: Artefact, place: Workplace, what: str = "samples"
) -> Artefact:
    """Measure one sample set against the real data and against the guided teacher's samples of the same noise.

    Args:
        config: what is measured.
        samples: the sample set.
        guided: the guided teacher's.
        place: where to work.
        what: the sample set in words.
    """
    extractor = _extractor(config, place)
    identity = {
        "version": VERSION,
        "samples": samples.digest,
        "guided": guided.digest,
        "evaluate": config.identity(),
        "extractor": extractor.identity() if extractor else None,
    }

    def work(artefact: Artefact) -> None:
        sampled, guided_latents = read_samples(samples), read_samples(guided).latents
        seen = _seen_by(extractor, sampled, place) if extractor else None
        evaluation = evaluate_samples(sampled, guided_latents, seen, config)
        write_json(evaluation.as_dict(), artefact.path / EVALUATION)

    return place.produce(STAGE, identity, work, title=f"evaluate {what}")


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


def _seen_by(extractor: FeatureExtractor, samples: SampleSet, place: Workplace) -> SampleFeatures:
    with place.on_device(f"features of {len(samples.images)} images"):
        return SampleFeatures.of(samples, extractor)
