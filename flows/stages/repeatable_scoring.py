"""What evaluation repeats: networks that look at images, and the metrics of one sample set."""

from dataclasses import dataclass

import torch

from agd_core.evaluation.evaluator import evaluate_samples
from agd_core.evaluation.extractors import FeatureExtractor
from agd_core.evaluation.metrics import FeatureStatistics, Measured, Reference, Seen
from agd_core.evaluation.metrics.base import Images
from agd_core.evaluation.metrics.reference import KEPT_FEATURES
from agd_core.evaluation.sampling import to_bytes
from flows.instruments import open_networks
from flows.run import Run
from flows.stages.repeatable import Repeatable
from flows.stages.stopwatch import Tick

_FEW = 64
"""Images of a first round that does not count."""


@dataclass(frozen=True)
class Looking(Repeatable):
    """The extractor, or the judge where that is another network; a unit is an image."""

    is_judge: bool = False

    @property
    def text(self) -> str:
        return f"{self.together} images through the {'judge' if self.is_judge else 'extractor'}"

    def repeat(self, run: Run, tick: Tick) -> None:
        extractor, judge = open_networks(run.config.evaluate, run.model, run.place.device)
        network = judge if self.is_judge else extractor
        images = _images(run, self.together)
        while network:
            network.extract(images)
            tick(self.together)


@dataclass(frozen=True)
class Scoring(Repeatable):
    """Every metric of a sample set, made on random features; a unit is an image, as if time grew with them."""

    @property
    def text(self) -> str:
        return f"metrics of {self.together} images"

    def repeat(self, run: Run, tick: Tick) -> None:
        few, many = (_random_sets(run, count) for count in (min(_FEW, self.together), self.together))
        evaluate_samples(few, run.config.evaluate)  # libraries are loaded
        tick(0)
        while True:
            evaluate_samples(many, run.config.evaluate)
            tick(self.together)


def _random_sets(run: Run, count: int) -> Measured:
    """What a run measures of two sample sets of so many images, made of random numbers."""
    extractor, judge = open_networks(run.config.evaluate, run.model, run.place.device)
    samples, guided = (_seen(run, count, extractor, judge) for _ in range(2))
    return Measured(samples, guided, _reference(run, extractor))


def _images(run: Run, count: int) -> Images:
    """One random image, so many times, in the memory of one."""
    latents = torch.randn(1, *run.model.latent_shape).to(run.model.device)
    return to_bytes(run.model.decode(latents)).cpu().expand(count, -1, -1, -1)


def _seen(run: Run, count: int, extractor: FeatureExtractor | None, judge: FeatureExtractor | None) -> Seen:
    labels = [index % len(run.sampled) for index in range(count)]
    classes = len(extractor.class_names) if extractor else 0
    return Seen(
        images=_images(run, count),
        latents=torch.randn(count, *run.model.latent_shape),
        labels=torch.tensor(run.sampled.strata(labels)),
        features=torch.randn(count, extractor.width) if extractor else None,
        logits=torch.randn(count, classes) if classes else None,
        agreement=torch.rand(count).round() if judge else None,
        agreement_metric="accuracy" if judge else "",
    )


def _reference(run: Run, extractor: FeatureExtractor | None) -> Reference | None:
    """Random features, as many as there may be, where there are real images."""
    if extractor is None or not (run.config.evaluate.reference or extractor.shipped_reference()):
        return None
    kept = torch.randn(KEPT_FEATURES, extractor.width)
    return Reference(FeatureStatistics.of(kept), kept, "random")
