"""Inception v3 as TensorFlow published it in 2015: the network of the FID, KID and Inception score."""

import io
from pathlib import Path

import torch
from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.basics.weights import read_state
from agd_core.evaluation.extractors.base import FeatureExtractor
from agd_core.evaluation.extractors.files import missing_package, reason
from agd_core.evaluation.extractors.preprocessing import planes
from agd_core.evaluation.metrics.base import Images

STANDARD_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""What torch hub calls the file that torch-fidelity publishes with its version 0.2.0."""
STANDARD_SHA256 = "6726825d"
"""How its sha256 begins: torch hub's rule for file names."""
_KIND = "inception-v3-compat"


class InceptionFeatures(FeatureExtractor):
    """torch-fidelity's "inception-v3-compat": its features "2048" and "logits_unbiased" (1008 classes).

    Heusel et al., https://arxiv.org/abs/1706.08500; https://github.com/toshas/torch-fidelity. The network, its
    resizing and its order of operations are torch-fidelity's own.
    """

    name = "inception-v3"
    resize = "299 x 299, bilinear as in TensorFlow 1.x"
    width = 2048

    def __init__(self, weights: Path | None, device: torch.device) -> None:
        path = weights or cached_weights()
        state, self.sha256 = read_state(path)
        self.model = _network(state, path).to(device)
        self.device = device

    @property
    def distance_name(self) -> str:  # type: ignore[override]
        """FID with the standard weights only: other weights make another distance."""
        if self.sha256.startswith(STANDARD_SHA256):
            return "FID"
        return f"FD (Inception v3, weights {self.sha256[:8]})"

    def look(self, images: Images) -> tuple[Tensor, ...]:
        """Pooled activations, and logits without their bias."""
        return tuple(self.model(planes(images).to(self.device)))


def cached_weights() -> Path:
    """The standard weights in torch hub's cache.

    Raises:
        InputError: they are not there; they are never downloaded.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / STANDARD_FILE
    if not path.is_file():
        raise InputError(
            f"extractor inception-v3 has no weights: put {STANDARD_FILE} (published with torch-fidelity 0.2.0) into "
            f"{path.parent}, or name a file in evaluate.extractor_weights"
        )
    return path


def _network(state: dict[str, Tensor], path: Path) -> torch.nn.Module:
    """The network with these weights.

    Its constructor unpickles whatever file it is given, so it gets a buffer that we wrote ourselves.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise missing_package(InceptionFeatures.name, error) from error
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        model: torch.nn.Module = FeatureExtractorInceptionV3(_KIND, ["2048", "logits_unbiased"], buffer)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit Inception v3: {reason(error)}") from error
    return model
