"""How bright images are."""

from agd_core.evaluation.metrics.base import Metric, Quantity
from agd_core.evaluation.metrics.scores import mean_score

BRIGHTNESS = Quantity("brightness", "higher", "brightness", "{:.1f}", "Mean of all pixels, 0 to 255.")


def scores(measured, settings):
    values = measured.samples.images.double().flatten(1).mean(dim=1)
    return {BRIGHTNESS.name: mean_score(BRIGHTNESS, values, "mean over images")}


THROWAWAY = Metric("throwaway", (BRIGHTNESS,), scores)
