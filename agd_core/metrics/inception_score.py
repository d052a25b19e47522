"""The metric `inception-score`: are images of one class each, and of all classes together?

Salimans et al., https://arxiv.org/abs/1606.03498, section 4: `exp(mean KL(p(class | image) || p(class)))`, here with
the logits of any extractor that has a head. The value is torch-fidelity's.
"""

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from agd_core.metrics.base import Measured, Score
from agd_core.metrics.optional import optional_package
from agd_core.metrics.scores import normal_score
from agd_core.metrics.settings import EvaluateConfig
from agd_core.metrics.standard_errors import balanced_standard_error

_MOST_SPLITS, _FEWEST_PER_SPLIT = 10, 10


def inception_scores(measured: Measured, config: EvaluateConfig) -> Mapping[str, Score]:
    """`inception_score`: mean over ten random splits, fewer where a split would have fewer than ten images.

    Raises:
        InputError: torch-fidelity is not installed.
    """
    logits = measured.samples.logits
    if logits is None or len(logits) < 2:
        return {}
    splits = min(_MOST_SPLITS, max(1, len(logits) // _FEWEST_PER_SPLIT))
    value, spread = _torch_fidelity(logits, splits, config.seed)
    error = value * balanced_standard_error(_divergences(logits), measured.samples.labels)
    method = (
        f"mean of {splits} splits of {len(logits) // splits} images, spread among them {spread:.2g}; "
        "influence function within classes; it grows with the images per split"
    )
    return {"inception_score": normal_score(value, "higher", error, method)}


def _torch_fidelity(logits: Float[Tensor, "images classes"], splits: int, seed: int) -> tuple[float, float]:
    """Mean and standard deviation over splits."""
    with optional_package("inception-score"):
        from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
    found = isc_features_to_metric(logits, splits=splits, shuffle=True, rng_seed=seed)
    return found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD]


def _divergences(logits: Float[Tensor, "images classes"]) -> Float[Tensor, " images"]:
    """KL divergence of every image's classes from the mean of all.

    It is the influence of an image on the logarithm of the score: the mean's own change drops out, because shares sum
    to one.
    """
    log_shares = logits.double().log_softmax(dim=1)
    shares = log_shares.exp()
    divergences: Tensor = (shares * (log_shares - shares.mean(dim=0).log())).sum(dim=1)
    return divergences
