"""Feature extractors. A new one is one file here, one line in `EXTRACTORS` and its name in `ExtractorName`."""

from pathlib import Path

import torch

from agd_core.extractors.base import Agreement, Extracted, FeatureExtractor
from agd_core.extractors.fashion_classifier import FashionFeatures

EXTRACTORS: dict[str, type[FeatureExtractor]] = {
    extractor.name: extractor
    for extractor in (FashionFeatures,)
}


def open_extractor(name: str, weights: str | None, device: torch.device) -> FeatureExtractor | None:
    """The extractor of this name; None for "none".

    Raises:
        InputError: it cannot be loaded, see `FeatureExtractor`.
    """
    extractor = EXTRACTORS.get(name)
    return extractor(Path(weights).expanduser() if weights else None, device) if extractor else None


__all__ = ["EXTRACTORS", "Agreement", "Extracted", "FashionFeatures", "FeatureExtractor", "open_extractor"]
