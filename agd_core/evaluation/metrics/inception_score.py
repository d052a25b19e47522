"""The metric `inception-score`: are images of one class each, and of all classes together?

Salimans et al., https://arxiv.org/abs/1606.03498, section 4: `exp(mean KL(p(class | image) || p(class)))`, here with
the logits of any extractor that has a head. The value is torch-fidelity's.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from agd_core.evaluation.metrics.base import Measured, Metric, MetricSettings, Quantity, Score
from agd_core.evaluation.metrics.optional import optional_package
from agd_core.evaluation.metrics.scores import few_images, normal_score
from agd_core.evaluation.metrics.standard_errors import balanced_standard_error
from agd_core.evaluation.metrics.statistics import check_finite

INCEPTION = Quantity(
    "inception_score",
    "higher",
    "IS",
    "{:.2f}",
    "Inception Score: how surely and how variously images are recognised.",
    words="Inception Score",
    needs=frozenset({"features"}),
    least=0.99,
)
_MOST_SPLITS, _FEWEST_PER_SPLIT = 10, 10


def inception_scores(measured: Measured, settings: MetricSettings) -> Mapping[str, Score]:
    """`inception_score`: mean over ten random splits, fewer where a split would have fewer than ten images.

    Where next to no image is misjudged, what varies among sample sets is whether a rare one is; the error, taken from
    one set, is too small then.

    Raises:
        InputError: torch-fidelity is not installed.
        NumericError: a logit is NaN or infinite.
    """
    logits = measured.samples.logits
    if logits is None or len(logits) < 2:
        return {}
    check_finite(logits, "logits")
    splits = min(_MOST_SPLITS, max(1, len(logits) // _FEWEST_PER_SPLIT))
    value, spread = _torch_fidelity(logits, splits, settings.seed)
    error = _error(logits, measured.samples.labels, _split_of(len(logits), splits, settings.seed))
    method = (
        f"mean of {splits} splits of {len(logits) // splits} images, spread among them {spread:.2g}; "
        "influence function within classes; it grows with the images per split"
    )
    few = few_images(len(logits), "an inception score")
    return {INCEPTION.name: normal_score(INCEPTION, value, error, method, *few)}


def _torch_fidelity(logits: Float[Tensor, "images classes"], splits: int, seed: int) -> tuple[float, float]:
    """Mean and standard deviation over splits."""
    with optional_package("inception-score"):
        from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
    found = isc_features_to_metric(logits, splits=splits, shuffle=True, rng_seed=seed)
    return found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD]


def _split_of(images: int, splits: int, seed: int) -> Int[Tensor, " images"]:
    """The split into which torch-fidelity's shuffling puts every image."""
    shuffled = torch.from_numpy(np.random.RandomState(seed).permutation(images))
    bounds = torch.tensor([split * images // splits for split in range(1, splits)])
    split_of = torch.empty(images, dtype=torch.long)
    split_of[shuffled] = torch.bucketize(torch.arange(images), bounds, right=True)
    return split_of


def _error(
    logits: Float[Tensor, "images classes"], labels: Int[Tensor, " images"], split_of: Int[Tensor, " images"]
) -> float:
    """Standard error among sample sets of these classes, split in the same way.

    The influence of an image on its split's score is the score times the KL divergence of the image's classes from the
    split's: the change of the split's own mean drops out, because shares sum to one. Where a split has one image of a
    class, its noise cannot be told from the split's composition, and all splits are taken together.
    """
    _, cells, sizes = torch.unique(torch.stack([labels, split_of]), dim=1, return_inverse=True, return_counts=True)
    if int(sizes.min()) < 2:
        return balanced_standard_error(_influence(logits), labels)
    influence = torch.empty(len(logits)).double()
    for split in torch.unique(split_of):
        influence[split_of == split] = _influence(logits[split_of == split])
    return balanced_standard_error(influence, cells)


def _influence(logits: Float[Tensor, "images classes"]) -> Float[Tensor, " images"]:
    """Of every image of one split on the split's score, up to a constant."""
    log_shares = logits.double().log_softmax(dim=1)
    shares = log_shares.exp()
    divergences: Tensor = (shares * (log_shares - shares.mean(dim=0).log())).sum(dim=1)
    return divergences.mean().exp() * divergences


INCEPTION_SCORE = Metric("inception-score", (INCEPTION,), inception_scores)
