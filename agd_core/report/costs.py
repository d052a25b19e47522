"""The tables of costs: what was measured per step, what that makes for a whole image, what was trained for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agd_core.evaluation.rows import Row
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
    "GFLOP per image",
    "peak memory, MB",
)
TRAINING_HEADINGS = ("adapter", "parameters", "of the base", "file, MB", "training, s")


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
            _cell(gigaflops_per_image(method, self.steps), "{:,.4g}"),
            _cell(method["peak_memory_megabytes"], "{:,.0f}"),
        )


def gigaflops_per_image(method: Mapping[str, Any], steps: int) -> float | None:
    """Operations of a whole image of so many steps, in 10^9; None where they were not counted.

    Args:
        method: what `agd_core.evaluation.cost.Cost.as_dict` gives, measured over a sampler of as many steps.
        steps: of the sampler.
    """
    of_step: float | None = method["gigaflops_per_step"]
    return None if of_step is None else of_step * steps


def training_lines(rows: Sequence[Row]) -> list[tuple[TableCell, ...]]:
    """Every adapter of these rows once, in the order of `TRAINING_HEADINGS`."""
    adapters = {row.name: row for row in rows if row.adapter_parameters}
    return [
        (
            TableCell(name),
            _cell(row.adapter_parameters, "{:,}"),
            _cell(row.adapter_percent, "{:.1f} %"),
            _cell(None if row.adapter_bytes is None else row.adapter_bytes / 1e6, "{:,.2f}"),
            _cell(row.training_seconds, "{:,.1f}"),
        )
        for name, row in adapters.items()
    ]


def _cell(number: float | int | None, pattern: str, below: str = "") -> TableCell:
    return TableCell("-") if number is None else TableCell(pattern.format(number), below)
