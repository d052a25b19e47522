"""What sample sets are measured with: the networks that look at images, and the real images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from agd_core.basics.errors import InputError
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.extractors import FeatureExtractor, open_extractor
from agd_core.evaluation.metrics import Reference
from agd_core.models.model import BaseModel
from flows.reference import check_sources, reference
from flows.workplace import Workplace


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
        extractor, judge = open_networks(config, base_model, place.device)
        return cls(extractor, judge, reference(config, extractor, place) if extractor else None)

    @property
    def remarks(self) -> list[str]:
        """What must be known of the networks before their numbers are believed."""
        found = (network.remark() for network in (self.extractor, self.judge) if network)
        return [remark for remark in dict.fromkeys(found) if remark]

    def identity(self) -> dict[str, Any]:
        """What they are, as plain data."""
        return {
            "extractor": self.extractor.identity() if self.extractor else None,
            "judge": self.judge.identity() if self.judge else None,
            "reference": self.reference.identity() if self.reference else None,
        }


def check_evaluation(config: EvaluateConfig, base_model: BaseModel) -> None:
    """Refuse what cannot be measured, before any long work.

    Raises:
        InputError: an extractor cannot be loaded or knows other classes than the base model, or real images are not
            where they should be.
    """
    extractor, _ = open_networks(config, base_model, torch.device("cpu"))
    check_sources(config, extractor)


def open_networks(
    config: EvaluateConfig, base_model: BaseModel, device: torch.device
) -> tuple[FeatureExtractor | None, FeatureExtractor | None]:
    """(extractor, judge) on a device; the judge is the extractor itself, unless another one was asked for.

    Raises:
        InputError: one cannot be loaded, or knows other classes than the base model.
    """
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
