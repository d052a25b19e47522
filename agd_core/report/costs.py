"""The table of costs: what was measured per step, and what that makes for a whole image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agd_core.report.columns import TableCell

COST_HEADINGS = (
    "method",
    "evaluations per step",
    "one image, ms",
    "ms per step, batch 1",
    "images/s at saturation",
    "image steps/s",
    "ms per step",
    "batch",
    "overhead",
    "GFLOP per step",
    "peak memory, MB",
)


@dataclass(frozen=True)
class Costs:
    """What every method costs, on one machine."""

    device: str
    threads: int
    dtype: str
    steps: int
    """Sampler steps of the headline, to which a whole image is reckoned."""
    methods: Sequence[Mapping[str, Any]]
    """Each with its name and what `agd_core.evaluation.cost.Cost.as_dict` gives; None where it was not measured."""

    @property
    def lines(self) -> list[tuple[TableCell, ...]]:
        """The methods in the order of `COST_HEADINGS`; a dash where nothing was measured."""
        return [self._line(method) for method in self.methods]

    @property
    def place(self) -> str:
        """Where it was measured, in words."""
        return f"{self.device}, {self.threads} thread{'' if self.threads == 1 else 's'}, {self.dtype}"

    def _line(self, method: Mapping[str, Any]) -> tuple[TableCell, ...]:
        alone, steps_per_second = method["milliseconds_per_step_batch_1"], method["evaluated_images_per_second"]
        ends: list[Any] = [method.get("overhead_percent_low"), method.get("overhead_percent_high")]
        return (
            TableCell(method["name"]),
            _cell(method["network_evaluations_per_step"], "{:g}"),
            _cell(None if alone is None else alone * self.steps, "{:,.1f}"),
            _cell(alone, "{:.2f}"),
            _cell(None if steps_per_second is None else steps_per_second / self.steps, "{:,.2f}"),
            _cell(steps_per_second, "{:,.1f}"),
            _cell(method["milliseconds_per_step"], "{:,.1f}"),
            _cell(method["saturation_batch"], "{:,}", method.get("stopped_by", "")),
            _cell(method["overhead_percent"], "{:+.1f} %", "" if None in ends else "{:+.1f} to {:+.1f}".format(*ends)),
            _cell(method["gigaflops_per_step"], "{:,.3g}"),
            _cell(method["peak_memory_megabytes"], "{:,.0f}"),
        )


def _cell(number: float | int | None, pattern: str, below: str = "") -> TableCell:
    return TableCell("-") if number is None else TableCell(pattern.format(number), below)
