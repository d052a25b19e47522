"""The metric `paired`: how near every image is to the guided teacher's image of the same noise and class."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from agd_core.evaluation.metrics.base import Images, Measured, Metric, MetricSettings, PerImage, Quantity, Score, Seen
from agd_core.evaluation.metrics.optional import optional_package
from agd_core.evaluation.metrics.scores import mean_score, normal_score

PAIRED_MSE = Quantity(
    "paired_mse",
    "lower",
    "paired MSE",
    "{:.4f}",
    "Squared distance of final latents to the teacher's from the same noise.",
    words="paired error to the teacher",
    needs=frozenset({"guided"}),
    least=0.0,
    headline=True,
)
PSNR = Quantity(
    "psnr",
    "higher",
    "PSNR, dB",
    "{:.2f}",
    "Likeness to the teacher's image from the same noise, pixel by pixel; 58.9 dB is the cap: identical images.",
    needs=frozenset({"guided"}),
    least=0.0,
    most=59.0,
)
SSIM = Quantity(
    "ssim",
    "higher",
    "SSIM",
    "{:.3f}",
    "Structural likeness to the teacher's image from the same noise; 1 is equal.",
    needs=frozenset({"guided"}),
    least=-1.01,
    most=1.01,
    packages=("torchmetrics",),
)
FEATURE_COSINE = Quantity(
    "feature_cosine",
    "higher",
    "cosine",
    "{:.4f}",
    "Cosine to the teacher's image from the same noise, in features; 1 is equal.",
    words="cosine in features",
    needs=frozenset({"guided", "features"}),
    least=-1.01,
    most=1.01,
)
_ROUNDING_MSE = 1 / 12
"""Mean squared error of rounding to whole numbers; it bounds the PSNR at 58.9 dB."""
_SSIM_WINDOW = 11
"""Pixels of the Gaussian window; smaller images have no SSIM."""
_BATCH_VALUES = 1 << 20


def paired_scores(measured: Measured, settings: MetricSettings) -> Mapping[str, Score]:
    """`paired_mse` of the latents, `psnr` and `ssim` of the 8-bit images, `feature_cosine` where there are features.

    All are means over images with the standard error of independent ones. The guided set against itself has a
    `paired_mse` of zero by definition, without interval, and nothing else: none of it would be a measurement.

    Raises:
        InputError: torchmetrics is not installed.
    """
    samples, guided = measured.samples, measured.guided
    if guided is None:
        return {}
    latents = _squared_errors(samples.latents, guided.latents)
    if is_same_set(samples, guided):
        return {PAIRED_MSE.name: normal_score(PAIRED_MSE, float(latents.mean()), None, "the guided set itself")}
    scores = {
        PAIRED_MSE.name: mean_score(PAIRED_MSE, latents, "mean over images of the latents' mean squared difference"),
        PSNR.name: mean_score(PSNR, psnr(samples.images, guided.images), "mean over images in dB, at most 58.9"),
    }
    if min(samples.images.shape[1:3]) >= _SSIM_WINDOW:
        method = "mean over images; Gaussian window of 11 pixels, sigma 1.5, edges reflected"
        scores[SSIM.name] = mean_score(SSIM, ssim(samples.images, guided.images), method)
    if samples.features is not None and guided.features is not None:
        cosine = _cosines(samples.features, guided.features)
        scores[FEATURE_COSINE.name] = mean_score(FEATURE_COSINE, cosine, "mean over images of the features' cosine")
    return scores


def is_same_set(samples: Seen, guided: Seen) -> bool:
    """Are both one sample set: the same object, or equal in every latent and pixel?"""
    if samples is guided:
        return True
    return torch.equal(samples.latents, guided.latents) and torch.equal(samples.images, guided.images)


def psnr(images: Images, guided: Images) -> PerImage:
    """Peak signal-to-noise ratio in dB, data range 255.

    A mean squared error below that of rounding, 1/12, counts as 1/12: equal images have 58.9 dB and not infinity,
    which no mean survives and JSON does not hold.
    """
    errors = _squared_errors(images, guided)
    return 10 * torch.log10(255**2 / errors.clamp_min(_ROUNDING_MSE))


def ssim(images: Images, guided: Images) -> PerImage:
    """Structural similarity, Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861, by torchmetrics.

    Raises:
        InputError: torchmetrics is not installed.
    """
    with optional_package("paired"):
        from torchmetrics.functional.image import structural_similarity_index_measure

    def compare(a: Images, b: Images) -> Tensor:
        found = structural_similarity_index_measure(_planes(a), _planes(b), data_range=255.0, reduction="none")
        return torch.as_tensor(found).reshape(-1)

    return _by_batches(compare, images, guided)


def _squared_errors(a: Shaped[Tensor, "images *rest"], b: Shaped[Tensor, "images *rest"]) -> PerImage:
    """Mean over each image's values, float64."""
    return _by_batches(lambda x, y: (x.double() - y.double()).square().flatten(1).mean(dim=1), a, b)


def _cosines(a: Float[Tensor, "images width"], b: Float[Tensor, "images width"]) -> PerImage:
    return _by_batches(lambda x, y: torch.nn.functional.cosine_similarity(x.double(), y.double()), a, b)


def _by_batches(compare: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> PerImage:
    """Compare about a million values at a time, so that memory does not grow with the number of images.

    The values go into one tensor made before: small tensors left by every batch would keep the freed memory in pieces.
    """
    rows, values = max(1, _BATCH_VALUES // a[0].numel()), torch.empty(len(a), dtype=torch.float64)
    for start in range(0, len(a), rows):
        values[start : start + rows] = compare(a[start : start + rows], b[start : start + rows])
    return values


def _planes(images: Images) -> Float[Tensor, "images channels height width"]:
    return images.permute(0, 3, 1, 2).float()


PAIRED = Metric("paired", (PAIRED_MSE, PSNR, SSIM, FEATURE_COSINE), paired_scores)
