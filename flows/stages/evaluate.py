"""Stage 4: every metric of one sample set, with its errors and its protocol, as a small JSON artefact."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from agd_core.basics.atomic import write_json
from agd_core.data.subjects import Subjects
from agd_core.evaluation.evaluator import evaluate_samples
from agd_core.evaluation.extractors import FeatureExtractor
from agd_core.evaluation.metrics import Measured, Reference, Score, Seen
from agd_core.evaluation.protocol import Protocol, library_versions
from agd_core.evaluation.rows import RecordedProtocol
from flows.instruments import Instruments
from flows.run import Run
from flows.stages.features import features, read_features
from flows.stages.sample import Cell, read_samples, read_sampling_cost
from flows.workplace import Workplace
from storage.artefacts import Artefact

STAGE, VERSION = "evaluation", 4
EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class LookedAt:
    """A sample set with what the networks make of it."""

    samples: Artefact
    features: Artefact | None
    judged: Artefact | None
    """Features of the judge, where it is not the extractor."""
    judge: FeatureExtractor | None
    subjects: Subjects
    """What the images were asked for."""

    @classmethod
    def by(
        cls, instruments: Instruments, samples: Artefact, subjects: Subjects, place: Workplace, what: str
    ) -> "LookedAt":
        """Let the networks look at a sample set, unless they have.

        Raises:
            Stopped: when asked to; run again to go on.
        """
        extractor, judge = instruments.extractor, instruments.judge
        seen = features(extractor, samples, place, what) if extractor else None
        judged = features(judge, samples, place, what) if judge and judge is not extractor else None
        return cls(samples, seen, judged, judge, subjects)

    @cached_property
    def seen(self) -> Seen:
        """The sample set as the metrics see it, read when it is first asked for and held as long as this is."""
        sampled = read_samples(self.samples)
        extracted = read_features(self.features) if self.features else None
        judged = read_features(self.judged) if self.judged else extracted
        agreement = ranks = None
        if self.judge and judged:
            asked = self.subjects.texts(sampled.labels.tolist())
            agreement = self.judge.agreement(judged, sampled.labels, asked)
            ranks = self.judge.ranks(judged, asked)
        return Seen(
            images=sampled.images,
            latents=sampled.latents,
            labels=torch.tensor(self.subjects.strata(sampled.labels.tolist())),
            features=extracted.features if extracted else None,
            logits=extracted.logits if extracted else None,
            agreement=agreement.values if agreement else None,
            agreement_metric=agreement.metric if agreement else "",
            ranks=ranks,
        )


def evaluate(run: Run, cell: Cell, samples: LookedAt, guided: LookedAt, label: str) -> Artefact:
    """Measure one sample set against real images and against the guided teacher's samples of the same noise.

    Args:
        run: with what it is measured with.
        cell: where the sample set lies.
        samples: the sample set.
        guided: the guided teacher's.
        label: the method in words.
    """
    config, instruments = run.config.evaluate, run.instruments
    identity = {
        "version": VERSION,
        "samples": samples.samples.digest,
        "guided": guided.samples.digest,
        "evaluate": config.identity(),
        "instruments": instruments.identity(),
        "teacher": run.config.teacher_identity,  # two rules may give the same images; the protocol names one of them
    }

    def work(artefact: Artefact) -> None:
        scores = evaluate_samples(Measured(samples.seen, guided.seen, instruments.reference), config)
        protocol = make_protocol(run, cell, samples.samples)
        plain = {name: score.model_dump(mode="json") for name, score in scores.items()}
        write_json({"scores": plain, "protocol": protocol.as_dict()}, artefact.path / EVALUATION)

    return run.place.produce(STAGE, identity, work, title=f"evaluate {label}, {cell.point}")


class Evaluation(TypedDict):
    """What an evaluation's file holds."""

    scores: dict[str, Score]
    protocol: RecordedProtocol


def read_evaluation(artefact: Artefact) -> Evaluation:
    """Scores and protocol of a finished evaluation."""
    return TypeAdapter(Evaluation).validate_python(artefact.json(EVALUATION, Evaluation))


def make_protocol(run: Run, cell: Cell, samples: Artefact) -> Protocol:
    """How the numbers of one cell are made."""
    config, instruments = run.config, run.instruments
    extractor, judge, real = instruments.extractor, instruments.judge, instruments.reference
    resizes = dict.fromkeys(network.resize for network in (extractor, judge) if network)
    return Protocol(
        base_model=config.base_model.source,
        base_digest=run.model.pipeline_digest(),
        guidance=config.teacher_identity,
        extractor=extractor.name if extractor else "none",
        extractor_sha256=extractor.identity() if extractor else None,
        distance=extractor.distance_name if extractor else "none",
        judge=judge.name if judge else "none",
        judge_sha256=judge.identity() if judge else None,
        resize="; judge: ".join(resizes) or "none",
        reference=_real_images(real) if real else None,
        prompts=run.sampled.identity(),
        images=config.sample.images,
        seed=config.sample.seed,
        scheduler=cell.scheduler,
        steps=cell.steps,
        guidance_scale=cell.guidance_scale,
        settings={**config.evaluate.identity(), "version": VERSION},
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
