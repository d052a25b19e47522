"""Which presets jobs measure: the published models, and miniatures of the same classes at toy size."""

from collections.abc import Sequence

from agd_core.methods import MethodConfig
from benchmarks.gpu.place import Place
from flows.config import PipelineConfig

_TOYS = {"dit-xl-2-256": "tiny-dit", "sdxl": "tiny-sdxl", "sd21": "tiny-sd", "sd3": "tiny-sd3"}
"""The miniature that stands for each published model."""


def preset_names(place: Place, *published: str) -> Sequence[str]:
    """These, or at toy size the miniatures that stand for the first two of them."""
    return [_TOYS[name] for name in published[:2]] if place.toy else published


def first_method(config: PipelineConfig) -> MethodConfig:
    """The one that the authors take for this model."""
    return config.methods[0]
