"""Stage 4: every metric of one sample set, with its errors and its protocol, as a small JSON artefact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from typing_extensions import TypedDict

from agd_core.atomic import write_json
from agd_core.base_models import BaseModel
from agd_core.digest import file_digest
from agd_core.errors import InputError
from agd_core.evaluator import evaluate_samples
from agd_core.extractors import FeatureExtractor, open_extractor
from agd_core.home import expand
from agd_core.metrics import EvaluateConfig, Measured, Reference, Seen
from agd_core.metrics.base import Better
from agd_core.protocol import Protocol, library_versions
from agd_core.subjects import Subjects
from flows.config import PipelineConfig
from flows.stages.features import features, read_features
from flows.stages.reference import check_sources, reference
from flows.stages.sample import Cell, read_samples, read_sampling_cost
from flows.subjects import sample_subjects
from flows.workplace import Workplace
from storage.artefacts import Artefact

STAGE, VERSION = "evaluation", 3
EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class Instruments:
    """The networks and real images with which sample sets are measured."""

    extractor: FeatureExtractor | None
    judge: FeatureExtractor | None
    """The extractor itself, unless another one was asked for."""
    reference: Reference | None

    @classmethod
    def open(cls, config: EvaluateConfig, base_model: BaseModel, place: Workplace) -> "Instruments":
        """Load them; statistics of the real images are computed where they are not there yet.

        Raises:
            InputError: see `check_evaluation`.
            Stopped: while looking at real images.
        """
        extractor, judge = _networks(config, base_model, place.device)
        return cls(extractor, judge, reference(config, extractor, place) if extractor else None)

    def identity(self) -> dict[str, Any]:
        """What they are, as plain data."""
        return {
            "extractor": self.extractor.identity() if self.extractor else None,
            "judge": self.judge.identity() if self.judge else None,
            "reference": self.reference.identity() if self.reference else None,
        }


@dataclass(frozen=True)
class LookedAt:
    """A sample set with what the networks make of it."""

    samples: Artefact
    features: Artefact | None
    judged: Artefact | None
    """Features of the judge, where it is not the extractor."""

    @classmethod
    def by(cls, instruments: Instruments, samples: Artefact, place: Workplace, what: str) -> "LookedAt":
        """Let the networks look at a sample set, unless they have.

        Raises:
            Stopped: when asked to; run again to go on.
        """
        extractor, judge = instruments.extractor, instruments.judge
        seen = features(extractor, samples, place, what) if extractor else None
        judged = features(judge, samples, place, what) if judge and judge is not extractor else None
        return cls(samples, seen, judged)


def evaluate(
    config: PipelineConfig,
    cell: Cell,
    samples: LookedAt,
    guided: LookedAt,
    base_model: BaseModel,
    instruments: Instruments,
    place: Workplace,
    label: str,
) -> Artefact:
    """Measure one sample set against real images and against the guided teacher's samples of the same noise.

    Args:
        config: what is measured, and how the samples were made.
        cell: where the sample set lies.
        samples: the sample set.
        guided: the guided teacher's.
        base_model: names the classes.
        instruments: what it is measured with.
        place: where to work.
        label: the method in words.
    """
    identity = {
        "version": VERSION,
        "samples": samples.samples.digest,
        "guided": guided.samples.digest,
        "evaluate": _settings(config.evaluate),
        "instruments": instruments.identity(),
    }

    subjects = sample_subjects(config.sample, base_model)

    def work(artefact: Artefact) -> None:
        seen, paired_with = (see(looked, instruments, subjects) for looked in (samples, guided))
        scores = evaluate_samples(Measured(seen, paired_with, instruments.reference), config.evaluate)
        protocol = make_protocol(config, cell, samples.samples, base_model, instruments)
        values = {"scores": {name: score.as_dict() for name, score in scores.items()}, "protocol": protocol.as_dict()}
        write_json(values, artefact.path / EVALUATION)

    return place.produce(STAGE, identity, work, title=f"evaluate {label}, {cell.point}")


class StoredScore(TypedDict):
    """`agd_core.metrics.Score.as_dict()`."""

    value: float | None
    better: Better
    standard_error: float | None
    low: float | None
    high: float | None
    warnings: list[str]


class Evaluation(TypedDict):
    """What an evaluation's file holds."""

    scores: dict[str, StoredScore]
    protocol: dict[str, Any]


def read_evaluation(artefact: Artefact) -> Evaluation:
    """Scores and protocol of a finished evaluation."""
    return artefact.json(EVALUATION, Evaluation)


def check_evaluation(config: EvaluateConfig, base_model: BaseModel) -> None:
    """Refuse what cannot be measured, before any long work.

    Raises:
        InputError: an extractor cannot be loaded or knows other classes than the base model, or real images are not
            where they should be.
    """
    extractor, _ = _networks(config, base_model, torch.device("cpu"))
    check_sources(config, extractor)


def _networks(
    config: EvaluateConfig, base_model: BaseModel, device: torch.device
) -> tuple[FeatureExtractor | None, FeatureExtractor | None]:
    extractor = open_extractor(config.extractor, config.extractor_weights, config.extractor_sha256, device)
    judge = extractor
    if config.judge is not None and (config.judge != config.extractor or config.judge_weights is not None):
        judge = open_extractor(config.judge, config.judge_weights, None, device)
    for name, network in (("extractor", extractor), ("judge", judge)):
        _check_classes(name, network, base_model.class_names)
    return extractor, judge


def _check_classes(setting: str, network: FeatureExtractor | None, class_names: Sequence[str]) -> None:
    if network and network.class_names and tuple(network.class_names) != tuple(class_names):
        raise InputError(
            f"evaluate.{setting} {network.name!r} knows {', '.join(network.class_names[:3])}, ... only; this base "
            f"model has {len(class_names)} other classes; set evaluate.{setting}=none or another one"
        )


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    """What shapes a score beside the instruments."""
    kept = ("metrics", "distance_subsets", "kid_subsets", "kid_subset_size", "neighbours", "seed")
    lpips = file_digest(expand(config.lpips_weights)) if config.lpips_weights else None
    return {**{name: config.identity()[name] for name in kept}, "lpips": lpips, "version": VERSION}


def see(looked: LookedAt, instruments: Instruments, subjects: Subjects) -> Seen:
    """A sample set as the metrics see it."""
    sampled = read_samples(looked.samples)
    extracted = read_features(looked.features) if looked.features else None
    judged = read_features(looked.judged) if looked.judged else extracted
    agreement = None
    if instruments.judge and judged:
        asked = subjects.texts(sampled.labels.tolist())
        agreement = instruments.judge.agreement(judged, sampled.labels, asked)
    return Seen(
        images=sampled.images,
        latents=sampled.latents,
        labels=torch.tensor(subjects.strata(sampled.labels.tolist())),
        features=extracted.features if extracted else None,
        logits=extracted.logits if extracted else None,
        agreement=agreement.values if agreement else None,
        agreement_metric=agreement.metric if agreement else "",
    )


def make_protocol(
    config: PipelineConfig, cell: Cell, samples: Artefact, base_model: BaseModel, instruments: Instruments
) -> Protocol:
    """How the numbers of one cell are made."""
    extractor, judge, real = instruments.extractor, instruments.judge, instruments.reference
    resizes = dict.fromkeys(network.resize for network in (extractor, judge) if network)
    return Protocol(
        base_model=config.base_model.source,
        base_digest=base_model.pipeline_digest(),
        guidance=config.guidance.identity(),
        extractor=extractor.name if extractor else "none",
        extractor_sha256=extractor.identity() if extractor else None,
        distance=extractor.distance_name if extractor else "none",
        judge=judge.name if judge else "none",
        judge_sha256=judge.identity() if judge else None,
        resize="; judge: ".join(resizes) or "none",
        reference=_real_images(real) if real else None,
        prompts=sample_subjects(config.sample, base_model).identity(),
        images=config.sample.images,
        seed=config.sample.seed,
        scheduler=cell.scheduler,
        steps=cell.steps,
        guidance_scale=cell.guidance_scale,
        settings=_settings(config.evaluate),
        libraries=_libraries(samples),
    )


def _libraries(samples: Artefact) -> dict[str, str]:
    """Versions that measure, and those that sampled where they were others."""
    measuring = library_versions()
    sampling = read_sampling_cost(samples)["libraries"]
    others = {name: version for name, version in sampling.items() if version != measuring.get(name)}
    return measuring | {f"{name} (sampling)": version for name, version in others.items()}


def _real_images(real: Reference) -> dict[str, Any]:
    """The real images, for the protocol."""
    return {
        "sha256": real.identity(),
        "description": real.description,
        "images": real.statistics.samples,
    }
