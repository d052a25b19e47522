"""Metrics and feature extractors. A new extractor is one file here plus one line in `EXTRACTORS`."""

from agd_core.metrics.base import FeatureExtractor
from agd_core.metrics.fashion_classifier import FashionFeatures
from agd_core.metrics.frechet import FeatureStatistics, bootstrap_standard_error, frechet_distance
from agd_core.metrics.regression import Measurement, Verdict, judge_nights
from agd_core.metrics.standard_errors import accuracy_standard_error, distance_standard_error, paired_error

EXTRACTORS: dict[str, type[FeatureExtractor]] = {"fashion-classifier": FashionFeatures}

__all__ = [
    "EXTRACTORS",
    "FashionFeatures",
    "FeatureExtractor",
    "FeatureStatistics",
    "Measurement",
    "Verdict",
    "accuracy_standard_error",
    "bootstrap_standard_error",
    "distance_standard_error",
    "frechet_distance",
    "judge_nights",
    "paired_error",
]
