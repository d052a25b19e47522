"""The metric `saturation`: are colours and contrasts those of the guided teacher's images from the same noise?

Guidance drives chroma and contrast up, and a student that has learned it may overdo or lose that. Chroma is CIELAB's
`sqrt(a^2 + b^2)`, CIE 15:2004, white D65; contrast is the root mean square one, the standard deviation of an image's
relative luminance, Peli 1990, https://doi.org/10.1364/JOSAA.7.002032. Pixels are sRGB, IEC 61966-2-1.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.evaluation.metrics.base import Images, Measured, Metric, MetricSettings, PerImage, Quantity, Score
from agd_core.evaluation.metrics.paired import is_same_set
from agd_core.evaluation.metrics.standard_errors import NORMAL_95

CHROMA = Quantity(
    "chroma_shift",
    "lower",
    "chroma shift",
    "{:.1%}",
    "By how much the mean chroma differs from that of the teacher's images from the same noise.",
    needs=frozenset({"guided"}),
    least=0.0,
    of_teacher=0.0,
)
CONTRAST = Quantity(
    "contrast_shift",
    "lower",
    "contrast shift",
    "{:.1%}",
    "By how much the mean contrast differs from that of the teacher's images from the same noise.",
    needs=frozenset({"guided"}),
    least=0.0,
    of_teacher=0.0,
)
_TO_XYZ = torch.tensor(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]], dtype=torch.float64
)
"""Linear sRGB to XYZ; white is (0.9505, 1, 1.089)."""
_WHITE = _TO_XYZ.sum(dim=1)
_BATCH_PIXELS = 1 << 18


def saturation_scores(measured: Measured, settings: MetricSettings) -> Mapping[str, Score]:
    """`chroma_shift` of colour images and `contrast_shift`; nothing for the guided set itself."""
    samples, guided = measured.samples, measured.guided
    if guided is None or is_same_set(samples, guided):
        return {}
    (chroma, contrast), (chroma_there, contrast_there) = (looks(seen.images) for seen in (samples, guided))
    scores = {CONTRAST.name: _shift(CONTRAST, contrast, contrast_there)}
    if samples.images.shape[3] == 3:
        scores[CHROMA.name] = _shift(CHROMA, chroma, chroma_there)
    return scores


def looks(images: Images) -> tuple[PerImage, PerImage]:
    """Mean chroma (0 to about 134) and contrast (0 to 0.5) of every image; grey ones have no chroma."""
    rows = max(1, _BATCH_PIXELS // (images.shape[1] * images.shape[2]))
    parts = [_look(batch) for batch in torch.split(images, rows)]
    chroma, contrast = (torch.cat(found) for found in zip(*parts, strict=True))
    return chroma, contrast


def _look(images: Images) -> tuple[PerImage, PerImage]:
    colours = _linear()[images.long()].expand(-1, -1, -1, 3)  # [images, height, width, 3]
    xyz = colours @ _TO_XYZ.T
    x, y, z = _lightness(xyz / _WHITE).unbind(dim=3)
    chroma = torch.hypot(500 * (x - y), 200 * (y - z))
    return chroma.flatten(1).mean(dim=1), xyz[..., 1].flatten(1).std(dim=1, correction=0)


def _linear() -> Float[Tensor, " 256"]:
    """Linear light of every byte."""
    encoded = torch.arange(256, dtype=torch.float64) / 255
    return torch.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _lightness(share: Float[Tensor, "*pixels 3"]) -> Float[Tensor, "*pixels 3"]:
    """CIELAB's f."""
    edge = 6 / 29
    return torch.where(share > edge**3, share.clamp_min(0) ** (1 / 3), share / (3 * edge**2) + 4 / 29)


def _shift(quantity: Quantity, values: PerImage, guided: PerImage) -> Score:
    """`|r - 1|` of the ratio r of the means over pairs; the interval is r's by the delta method, folded at 1."""
    ratio = float(values.mean() / guided.mean())
    residuals = values - ratio * guided
    error = float(residuals.std() / guided.mean()) / math.sqrt(len(values)) if len(values) > 1 else None
    method = f"mean {ratio:.4f} times the teacher's, ratio of means over pairs; delta method"
    if error is None:
        return Score.of(quantity, abs(ratio - 1), None, None, method)
    low, high = (ratio + sign * NORMAL_95 * error - 1 for sign in (-1, 1))
    nearest = 0.0 if low < 0 < high else min(abs(low), abs(high))
    return Score.of(quantity, abs(ratio - 1), error, (nearest, max(abs(low), abs(high))), method)


SATURATION = Metric("saturation", (CHROMA, CONTRAST), saturation_scores)
