"""What is measured beside images: the cost of a step, and the prediction error at every step."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agd_core.report.costs import Costs, gigaflops_per_image
from flows.run import Run
from flows.stages.comparison import TrainedAdapters, methods
from flows.stages.cost import cost, read_cost
from flows.stages.prediction_error import prediction_error, read_curves
from storage.artefacts import Artefact


@dataclass(frozen=True)
class Extras:
    """The artefacts of all; empty where they were not asked for."""

    cost: Artefact | None = None
    curves: Mapping[str, Artefact] = field(default_factory=dict)
    """By the name of an adapter, or of a rule that needs no training."""
    training_cost: Artefact | None = None

    @property
    def artefacts(self) -> dict[str, Artefact]:
        """All of them by what they are."""
        costs = {"cost": self.cost, "training cost": self.training_cost}
        found = {name: artefact for name, artefact in costs.items() if artefact}
        return found | {f"prediction error of {name}": curve for name, curve in self.curves.items()}

    def costs(self, steps: int) -> Costs | None:
        """The cost of every method, reckoned to images of so many steps."""
        if self.cost is None:
            return None
        found = read_cost(self.cost)
        return Costs(found["device"], found["threads"], found["dtype"], steps, found["methods"])

    def prediction_errors(self) -> dict[str, Any] | None:
        """Every method's errors, see `flows.stages.prediction_error.read_curves`."""
        return read_curves(self.curves) if self.curves else None

    def as_dict(self, steps: int) -> dict[str, Any]:
        """Plain data for metrics.json; operations are reckoned to images of so many steps, too."""
        cost: dict[str, Any] | None = None
        if self.cost:
            stored = read_cost(self.cost)
            of_image = [{"gigaflops_per_image": gigaflops_per_image(method, steps)} for method in stored["methods"]]
            methods = [method | more for method, more in zip(stored["methods"], of_image, strict=True)]
            cost = {**stored, "methods": methods, "steps": steps}
        return {"cost": cost, "prediction_error": self.prediction_errors()}


def measure_extras(run: Run, adapters: TrainedAdapters) -> Extras:
    """Measure both at the headline's scale, unless they are there.

    Raises:
        Stopped: when asked to; run again to go on.
    """
    wanted, compared = run.config.evaluate, methods(run.config, adapters)
    asked = [method for method in compared if method.adapter or method.training_free]
    curves = {method.name: prediction_error(run, method) for method in asked if wanted.curve_images}
    return Extras(cost(run, compared) if wanted.measure_cost else None, curves)
