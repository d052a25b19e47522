"""DINOv2 from a local folder: the network of FD-DINOv2."""

from pathlib import Path

import torch
from torch import Tensor

from agd_core.evaluation.extractors.base import FeatureExtractor
from agd_core.evaluation.extractors.files import (
    CONFIG,
    WEIGHTS,
    folder_identity,
    load_network,
    missing_package,
    model_folder,
)
from agd_core.evaluation.extractors.preprocessing import (
    BICUBIC,
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalised,
    planes,
    resized,
)
from agd_core.evaluation.metrics.base import Images

_SIZE = 224


class Dinov2Features(FeatureExtractor):
    """The class token after the last layer norm, without a head.

    Oquab et al., https://arxiv.org/abs/2304.07193. Preprocessing as in dgm-eval of Stein et al.,
    https://arxiv.org/abs/2306.04675, who use ViT-L/14; transformers interpolates the position embeddings to 224 x 224
    a little differently than the original code, so distances need not agree with theirs to every digit.
    """

    name = "dinov2"
    distance_name = "FD-DINOv2"
    resize = f"{_SIZE} x {_SIZE}, {BICUBIC}"

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        folder = model_folder(weights, self.name, "dinov2")
        try:
            from transformers import Dinov2Model
        except ImportError as error:
            raise missing_package(self.name, error) from error
        self.sha256 = folder_identity(folder, (CONFIG, *WEIGHTS))
        self.model = load_network(Dinov2Model, folder, device)
        self.width = self.model.config.hidden_size
        self.device = device

    def look(self, images: Images) -> tuple[Tensor]:
        pixels = resized(planes(images), _SIZE, _SIZE).to(self.device)
        return (self.model(pixel_values=normalised(pixels, IMAGENET_MEAN, IMAGENET_STD)).pooler_output,)
