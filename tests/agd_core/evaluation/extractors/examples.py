"""Every extractor with weights that tests can have: shipped and installed ones, or the real classes tiny and RANDOM."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import transformers
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from tests.agd_core.evaluation.extractors.tiny_clip import write_tiny_clip
from tests.agd_core.evaluation.extractors.tiny_judge import write_tiny_judge


class Example(NamedTuple):
    """One extractor."""

    write: Callable[[Path], Path | None] = lambda folder: None
    """Puts its weights into a folder; None for those that are shipped or installed."""
    grey: bool = False
    """Takes 32 x 32 images of one channel alone."""
    images: int = 65
    """On a CPU in a second or two."""


def random_inception() -> dict[str, torch.Tensor]:
    """He-normal weights for every tensor of Inception v3, so that activations keep their scale."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        state = FeatureExtractorInceptionV3("random", ["2048"]).state_dict()
    generator = torch.Generator().manual_seed(0)
    matrices = {name: tensor for name, tensor in state.items() if tensor.ndim > 1}
    drawn = {
        name: torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
        for name, tensor in matrices.items()
    }
    return state | drawn


def write_random_inception(folder: Path) -> Path:
    torch.save(random_inception(), folder / "random-weights.pth")
    return folder / "random-weights.pth"


def write_tiny_dinov2(folder: Path) -> Path:
    """Made for 56 x 56, so that the position embeddings are interpolated, as with the published weights."""
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


EXAMPLES = {
    "fashion-classifier": Example(grey=True),
    "inception-v3": Example(write_random_inception, images=3),
    "efficientnet-lite0": Example(images=9),
    "dinov2": Example(write_tiny_dinov2),
    "clip": Example(write_tiny_clip),
    "emoji-judge": Example(write_tiny_judge),
}
