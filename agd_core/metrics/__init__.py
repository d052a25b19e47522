"""Metrics and feature extractors. A new extractor is one file here plus one line in `EXTRACTORS`."""

from agd_core.metrics.base import FeatureExtractor
from agd_core.metrics.fashion_classifier import FashionFeatures
from agd_core.metrics.frechet import FeatureStatistics, bootstrap_standard_error, frechet_distance

EXTRACTORS: dict[str, type[FeatureExtractor]] = {"fashion-classifier": FashionFeatures}

__all__ = [
    "EXTRACTORS",
    "FashionFeatures",
    "FeatureExtractor",
    "FeatureStatistics",
    "bootstrap_standard_error",
    "frechet_distance",
]
