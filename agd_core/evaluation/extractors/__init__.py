"""Feature extractors. A new one is one file here and one line in `EXTRACTORS`."""

import torch

from agd_core.basics.errors import InputError
from agd_core.basics.home import expand
from agd_core.evaluation.extractors.base import Agreement, Extracted, FeatureExtractor
from agd_core.evaluation.extractors.clip import ClipFeatures
from agd_core.evaluation.extractors.dinov2 import Dinov2Features
from agd_core.evaluation.extractors.efficientnet import EfficientNetFeatures
from agd_core.evaluation.extractors.emoji_judge import EmojiJudge
from agd_core.evaluation.extractors.fashion_classifier import FashionFeatures
from agd_core.evaluation.extractors.inception import InceptionFeatures

EXTRACTORS: dict[str, type[FeatureExtractor]] = {
    extractor.name: extractor
    for extractor in (
        FashionFeatures,
        InceptionFeatures,
        EfficientNetFeatures,
        Dinov2Features,
        ClipFeatures,
        EmojiJudge,
    )
}


def open_extractor(name: str, weights: str | None, sha256: str | None, device: torch.device) -> FeatureExtractor | None:
    """The extractor of this name; None for "none".

    Args:
        name: a key of `EXTRACTORS`, or "none".
        weights: file or folder with its weights; None takes what is shipped, installed or cached.
        sha256: what its `identity` must begin with; None accepts any weights.
        device: where it runs.

    Raises:
        InputError: it cannot be loaded, see `FeatureExtractor`, or has other weights.
    """
    if name == "none":
        return None
    opened = EXTRACTORS[name](expand(weights) if weights else None, device)
    if not (found := opened.identity()).startswith(sha256 or ""):
        raise InputError(f"extractor {name} has other weights: sha256 {found}, expected one that begins with {sha256}")
    return opened


__all__ = ["EXTRACTORS", "Agreement", "Extracted", "FashionFeatures", "FeatureExtractor", "open_extractor"]
