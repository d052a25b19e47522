"""Every metric with something that it can measure."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agd_core.basics.seeding import generator
from agd_core.evaluation.evaluator import EvaluateConfig
from agd_core.evaluation.metrics import FeatureStatistics, Measured, Reference, Seen
from tests.agd_core.evaluation.metrics.vgg import write_random_vgg16

IMAGES, CLASSES, WIDTH, SIDE = 120, 4, 6, 16


def seen(seed: int, count: int = IMAGES, kind: str = "accuracy") -> Seen:
    """A sample set of random numbers."""
    noise = generator("seen", seed)
    return Seen(
        images=torch.randint(0, 256, (count, SIDE, SIDE, 3), generator=noise, dtype=torch.uint8),
        latents=torch.randn(count, 2, 4, 4, generator=noise),
        labels=torch.arange(count) % CLASSES,
        features=torch.randn(count, WIDTH, generator=noise),
        logits=torch.randn(count, CLASSES, generator=noise),
        agreement=(torch.rand(count, generator=noise) < 0.7).float(),
        agreement_metric=kind,
        ranks=torch.randint(1, 9, (count, 2), generator=noise),
    )


def measured(samples: Seen, guided: Seen, real: Tensor) -> Measured:
    """Samples, the guided teacher's, and real images' features."""
    return Measured(samples, guided, Reference(FeatureStatistics.of(real), real, "made up"))


def settings(folder: Path, **changes: Any) -> EvaluateConfig:
    """Quick ones, for any metric."""
    quick = {"distance_subsets": 20, "kid_subsets": 2, "kid_subset_size": 50}
    return EvaluateConfig(**quick, lpips_weights=str(write_random_vgg16(folder)), **changes)


class Example(NamedTuple):
    """What one metric measures, and how that goes wrong."""

    samples: Seen = seen(0)
    guided: Seen = seen(1)
    broken: tuple[str, ...] = ()
    """Tensors of the samples in which NaN shows: refused, or no number with a warning."""
    few: int = IMAGES
    """As many images as take no time."""

    @property
    def measured(self) -> Measured:
        """Against real images that are others."""
        return measured(self.first(self.samples), self.first(self.guided), seen(2).features)

    @property
    def itself(self) -> Measured:
        """The samples against themselves: guided and real images are the same, but for one latent's last digits."""
        samples = self.first(self.samples)
        nudged = samples.latents.clone()
        nudged[0, 0, 0, 0] += 1e-6
        return measured(samples, replace(samples, latents=nudged), samples.features)

    def first(self, whole: Seen) -> Seen:
        """As many as take no time."""
        return changed(whole, lambda tensor: tensor[: self.few])


def there_and_back(whole: Seen) -> Seen:
    """Every image of a sample set, then every one in reverse."""
    return changed(whole, lambda tensor: torch.cat([tensor, tensor.flip(0)]))


def changed(whole: Seen, change: Callable[[Tensor], Tensor]) -> Seen:
    """A sample set with other images."""
    tensors = {name: change(value) for name, value in vars(whole).items() if isinstance(value, Tensor)}
    return replace(whole, **tensors)


EXAMPLES: dict[str, list[Example]] = {
    "frechet": [Example(broken=("features",))],
    "kid": [Example(broken=("features",))],
    "inception-score": [Example(broken=("logits",))],
    "precision-recall": [Example(broken=("features",))],
    "agreement": [Example(broken=("agreement",)), Example(seen(0, kind="clip_score"), broken=("agreement",))],
    "retrieval": [Example()],
    "paired": [Example(broken=("latents", "features"))],
    "lpips": [Example(few=3)],
    "saturation": [Example()],
}
CASES: list[tuple[str, Example]] = [(name, example) for name, found in EXAMPLES.items() for example in found]
