"""Two features: mean and standard deviation of all pixels."""

import torch

from agd_core.evaluation.extractors.base import FeatureExtractor


class ThrowawayFeatures(FeatureExtractor):
    name = "throwaway"
    resize = "none"
    width = 2
    sha256 = "0" * 64

    def __init__(self, weights, device):
        self.device = device

    def look(self, images):
        pixels = images.to(self.device).double().flatten(1)
        return (torch.stack([pixels.mean(dim=1), pixels.std(dim=1)], dim=1),)
