"""Which fields of a protocol shape which numbers: two of them meet only where the fields that shape them are equal."""

from collections.abc import Mapping, Sequence

from agd_core.evaluation.metrics import METRICS, Quantity, quantities
from agd_core.evaluation.metrics.base import Need
from agd_core.evaluation.protocol import Difference

_WORDS = frozenset({"base_model", "distance", "reference.description", "settings.metrics"})
"""Shape nothing: the digests beside them, and the scores that are there, decide."""
_SHAPED: Mapping[str, frozenset[Need]] = {
    "base_digest": frozenset({"guided"}),
    "guidance": frozenset({"guided"}),
    "extractor": frozenset({"features"}),
    "extractor_sha256": frozenset({"features"}),
    "judge": frozenset({"judge"}),
    "judge_sha256": frozenset({"judge"}),
    "resize": frozenset({"features", "judge"}),
    "reference": frozenset({"real"}),
    "libraries.torch-fidelity": frozenset({"features", "judge"}),
    "libraries.transformers": frozenset({"features", "judge"}),
}
"""Fields that shape what needs one of these alone.

Base model and guidance rule are what is being compared, save where the guided teacher is the yardstick.
"""


def shaping(differences: Sequence[Difference], name: str) -> list[Difference]:
    """Those in fields that shape this number; one that is not known here is shaped by everything but mere words."""
    return [found for found in differences if all(_shapes(field, name) for field in (found.top_field, found.field))]


def _shapes(field: str, name: str) -> bool:
    if field in _WORDS:
        return False
    if (quantity := quantities().get(name)) is None:
        return True
    if field in _SHAPED:
        return bool(_SHAPED[field] & quantity.needs)
    room, _, entry = field.partition(".")
    if room == "settings":
        owners = [metric for metric in METRICS.values() if metric.owns(entry)]
        return not owners or any(quantity in metric.quantities for metric in owners)
    return room != "libraries" or _uses(quantity, entry)


def _uses(quantity: Quantity, package: str) -> bool:
    """A package that no number names is behind all of them."""
    named = any(package in other.packages for other in quantities().values())
    return package in quantity.packages or not named
