"""The metric `lpips`: perceptual distance to the guided teacher's image of the same noise and class.

Zhang et al., https://arxiv.org/abs/1801.03924, version 0.1 of the authors' package `lpips`, which ships the linear
heads; VGG16's ImageNet weights come from a local file of torchvision's, nothing is downloaded.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from agd_core.basics.digest import file_digest
from agd_core.basics.errors import InputError
from agd_core.basics.home import expand
from agd_core.basics.weights import read_state
from agd_core.evaluation.metrics.base import Images, Measured, Metric, MetricSettings, PerImage, Quantity, Score
from agd_core.evaluation.metrics.optional import optional_package
from agd_core.evaluation.metrics.paired import is_same_set
from agd_core.evaluation.metrics.scores import mean_score

PERCEPTUAL = Quantity(
    "lpips",
    "lower",
    "LPIPS",
    "{:.4f}",
    "Perceptual distance to the teacher's image from the same noise.",
    needs=frozenset({"guided"}),
    least=-0.01,
    packages=("lpips",),
)
SMALLEST_SIDE = 16
"""Pixels; VGG16 halves an image four times."""
_BATCH_PIXELS = 1 << 18


class LpipsSettings(MetricSettings):
    """What the perceptual distance needs."""

    lpips_weights: str | None = None
    """torchvision's VGG16 weights file, for the LPIPS distance."""

    def identity(self) -> dict[str, Any]:
        """The weights by their content, wherever they lie."""
        digest = file_digest(expand(self.lpips_weights)) if self.lpips_weights else None
        return {**super().identity(), "lpips_weights": digest}

    @model_validator(mode="after")
    def _has_weights(self) -> "LpipsSettings":
        if LPIPS.name in self.metrics and not self.lpips_weights:
            raise ValueError("metrics names lpips, which needs lpips_weights")
        return self


def lpips_scores(measured: Measured, settings: LpipsSettings) -> Mapping[str, Score]:
    """`lpips`: mean over images with the standard error of independent ones; images are not resized.

    Raises:
        InputError: the package `lpips` is not installed, the weights cannot be read or are not VGG16's, or images are
            smaller than 16 pixels.
    """
    samples, guided = measured.samples, measured.guided
    if guided is None or settings.lpips_weights is None or is_same_set(samples, guided):
        return {}
    weights = expand(settings.lpips_weights)
    height, width = samples.images.shape[1:3]
    distances = perceptual_distance(samples.images, guided.images, weights)
    method = f"mean over images, {height} x {width} as they are; VGG16 sha256 {file_digest(weights)}"
    return {PERCEPTUAL.name: mean_score(PERCEPTUAL, distances, method)}


@torch.inference_mode()
def perceptual_distance(images: Images, guided: Images, weights: Path) -> PerImage:
    """LPIPS of every image to the other one; one-channel images are repeated to three.

    Args:
        images: 16 pixels or more on either side.
        guided: row by row.
        weights: torchvision's VGG16 state dict, safetensors or PyTorch.

    Raises:
        InputError: see `lpips_scores`.
    """
    if min(images.shape[1:3]) < SMALLEST_SIDE:
        raise InputError(
            f"lpips needs images of {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels or more; "
            f"found {images.shape[1]} x {images.shape[2]}"
        )
    network = _network(weights)
    rows = max(1, _BATCH_PIXELS // (images.shape[1] * images.shape[2]))
    batches = zip(torch.split(images, rows), torch.split(guided, rows), strict=True)
    return torch.cat([network(_to_rgb(a), _to_rgb(b)).reshape(-1) for a, b in batches])


def _network(weights: Path) -> nn.Module:
    """The authors' network with these weights; the global random state is left as it was."""
    with optional_package("lpips"):
        import lpips
    try:
        state, _ = read_state(weights)
    except InputError as error:
        raise InputError(f"evaluate.lpips_weights must be torchvision's VGG16: {error}") from error
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision the old way
        network: nn.Module = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    backbone = network.get_submodule("net")
    # "slice3.10.weight" of the package is "features.10.weight" of torchvision
    names = {name: f"features.{name.split('.', 1)[1]}" for name in backbone.state_dict()}
    try:
        backbone.load_state_dict({name: state[theirs] for name, theirs in names.items()})
    except (KeyError, RuntimeError) as error:
        raise InputError(
            f"evaluate.lpips_weights {weights} is no VGG16 of torchvision's (features.0.weight, ...)"
        ) from error
    return network


def _to_rgb(images: Images) -> Float[Tensor, "images 3 height width"]:
    """[-1, 1], three channels."""
    planes = images.permute(0, 3, 1, 2).float() / 127.5 - 1
    return planes.expand(-1, 3, -1, -1)


LPIPS = Metric("lpips", (PERCEPTUAL,), lpips_scores, LpipsSettings)
