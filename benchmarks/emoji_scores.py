"""What sets of images of the emoji world are measured with: their judge, and a network that was trained on photographs.

Every number has its 95 % interval where one is known, as `agd_core.evaluation.metrics` computes it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.evaluation.evaluator import EvaluateConfig, evaluate_samples
from agd_core.evaluation.extractors import FeatureExtractor, open_extractor
from agd_core.evaluation.extractors.emoji_judge import EmojiJudge
from agd_core.evaluation.metrics import FeatureStatistics, Measured, Reference, Score, Seen
from agd_core.evaluation.metrics.frechet import frechet_distance
from agd_core.evaluation.metrics.standard_errors import NORMAL_95
from agd_core.pretraining.emoji.images import HELD_OUT, TRAIN, EmojiImages
from benchmarks.emoji_sets import Asked

PHOTOGRAPHS = "efficientnet-lite0"
MEASURES = EvaluateConfig(
    extractor="none", metrics=("frechet", "agreement", "retrieval"), distance_subsets=20, measure_cost=False
)

Latents = Float[Tensor, "images channels height width"]
Found = dict[str, dict[str, dict[str, Any]]]
"""By split, then by the number's name: value, low, high."""


@dataclass(frozen=True)
class Instruments:
    """The networks that look, with statistics of the real pictures of the best-known concepts."""

    judge: EmojiJudge
    reference: Reference
    other: FeatureExtractor | None
    """Trained on photographs; None where its weights are not at hand, or it is not asked for."""
    other_reference: FeatureStatistics | None

    @classmethod
    def open(cls, folder: Path, pictures: EmojiImages, device: torch.device, judge_only: bool = False) -> "Instruments":
        """Load them and look at the real pictures, unless the judge's folder has their statistics.

        Args:
            folder: the judge's.
            pictures: all that are drawn.
            device: where the networks work.
            judge_only: leave the other network out.
        """
        judge = EmojiJudge(folder, device)
        real = pictures.of(TRAIN, HELD_OUT, common_only=True).pixels
        other = None if judge_only else _of_photographs(device)
        return cls(
            judge,
            judge.shipped_reference() or _reference(judge, real),
            other,
            FeatureStatistics.of(other.extract(real).features) if other else None,
        )

    def against(self, real: UInt8[Tensor, "images height width 3"]) -> "Instruments":
        """The judge alone, with these real pictures."""
        return Instruments(self.judge, _reference(self.judge, real), None, None)

    def scores(self, images: UInt8[Tensor, "images height width 3"], asked: Asked) -> Found:
        """Every number of a set, by split."""
        seen = self._seen(images, asked.prompts)
        found = {name: self._of_rows(seen, rows) for name, rows in asked.splits.items()}
        if self.other and self.other_reference:
            features = self.other.extract(images).features
            distance = frechet_distance(FeatureStatistics.of(features), self.other_reference)
            found["all"][f"fd_{PHOTOGRAPHS}"] = {"value": distance, "low": None, "high": None}
        return found

    def _seen(self, images: UInt8[Tensor, "images height width 3"], prompts: Sequence[str]) -> Seen:
        extracted, labels = self.judge.extract(images), torch.zeros(len(images), dtype=torch.long)
        agreement = self.judge.agreement(extracted, labels, prompts)
        return Seen(
            images=images,
            latents=torch.zeros(len(images), 0, 0, 0),
            labels=labels,
            features=extracted.features,
            agreement=agreement.values,
            agreement_metric=agreement.metric,
            ranks=self.judge.ranks(extracted, prompts),
        )

    def _of_rows(self, seen: Seen, rows: Bool[Tensor, " images"]) -> dict[str, dict[str, Any]]:
        part = Seen(
            images=seen.images[rows],
            latents=seen.latents[rows],
            labels=seen.labels[rows],
            features=_rows(seen.features, rows),
            agreement=_rows(seen.agreement, rows),
            agreement_metric=seen.agreement_metric,
            ranks=_rows(seen.ranks, rows),
        )
        return plain(evaluate_samples(Measured(part, None, self.reference), MEASURES))


def relative_error(student: Latents, teacher: Latents, unguided: Latents) -> dict[str, float]:
    """Mean squared distance of the student to the teacher over that of no guidance; image by image from equal noise.

    The interval is two standard errors of a ratio of means (the delta method), over images.
    """
    ours, theirs = ((each.double() - teacher.double()).square().flatten(1).mean(1) for each in (student, unguided))
    ratio = ours.mean() / theirs.mean()
    error = float((ours - ratio * theirs).std() / theirs.mean()) / math.sqrt(len(ours))
    return {"value": float(ratio), "low": float(ratio) - NORMAL_95 * error, "high": float(ratio) + NORMAL_95 * error}


def plain(scores: dict[str, Score]) -> dict[str, dict[str, Any]]:
    """For JSON."""
    return {name: {"value": each.value, "low": each.low, "high": each.high} for name, each in scores.items()}


def _rows(values: Float[Tensor, "images *rest"] | None, rows: Bool[Tensor, " images"]) -> Tensor | None:
    return None if values is None else values[rows]


def _reference(judge: EmojiJudge, real: UInt8[Tensor, "images height width 3"]) -> Reference:
    features = judge.extract(real).features
    return Reference(FeatureStatistics.of(features), features, f"{len(real):,} emoji")


def _of_photographs(device: torch.device) -> FeatureExtractor | None:
    try:
        return open_extractor(PHOTOGRAPHS, None, None, device)
    except InputError:
        return None
