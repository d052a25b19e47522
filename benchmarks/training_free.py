"""How near rules without training stay to the teacher, and what they spare: no adapter is trained, none compared.

    OMP_NUM_THREADS=1 python -m benchmarks.training_free --output outputs/training-free [--preset fashion-dit]
        [--rules '[{kind: cfg-gate}, {kind: guidance-cache}]'] [--set sample.images=500 ...]

Samples the preset's teacher, no guidance and every rule from the same noise at every guidance scale of the preset, and
prints a Markdown table: network evaluations per image, the paired error as a share of what no guidance errs, and the
other scores with the verdict against the teacher at 95 %. Sample sets that are there already are reused.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from agd_core.evaluation.comparing.against_teacher import against_teacher, teacher_beside
from agd_core.evaluation.metrics import quantities
from agd_core.evaluation.metrics.paired import PAIRED_MSE
from agd_core.evaluation.rows import Row
from flows.presets import load_config
from flows.run import Run
from flows.stages.comparison import NO_GUIDANCE, compare, headline_points
from flows.terminal import Terminal
from flows.workplace import Workplace, pick_device

RULES = (
    "[{kind: cfg-gate}, {kind: guidance-cache}, {kind: guidance-cache, every: 4}, "
    "{kind: interval, low: 0.28, high: 2.9}]"
)
SCORES = ("fd", "accuracy", "clip_score", "contrast_shift", "chroma_shift")
MEASURED = ("sample.curve_steps=[]", "evaluate.metrics=[frechet,agreement,paired,saturation]")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--preset", default="fashion-dit")
    parser.add_argument("--rules", default=RULES)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    asked = parser.parse_args(arguments)
    config = load_config(asked.preset, [f"training_free={asked.rules}", *MEASURED, *asked.overrides])
    with Terminal() as terminal:
        place = Workplace(asked.output, pick_device("auto"), terminal.announce, terminal.progress)
        compared = compare(Run(config, place).check(), (), headline_points(config))
    print("\n".join(table([item.row for item in compared])))


def table(rows: Sequence[Row]) -> list[str]:
    """The lines of a Markdown table, a line per row."""
    scores = [name for name in SCORES if any(name in row.scores for row in rows)]
    headings = ["scale", "method", "NFE", "paired error", *(quantities()[name].heading for name in scores)]
    lines = [headings, ["---"] * len(headings)]
    for row in rows:
        verdicts = against_teacher(row, teacher_beside(row, rows))
        cells = [_said(row, name, verdicts.get(name, "")) for name in scores]
        lines.append([f"{row.teacher_scale:g}", row.name, f"{row.nfe:g}", _share(row, rows), *cells])
    return [f"| {' | '.join(line)} |" for line in lines]


def _share(row: Row, rows: Sequence[Row]) -> str:
    """The paired error, of that of no guidance at the same scale."""
    plain = next(other for other in rows if other.name == NO_GUIDANCE.name and other.teacher_scale == row.teacher_scale)
    mine, whole = row.value(PAIRED_MSE.name), plain.value(PAIRED_MSE.name)
    return f"{mine / whole:.1%}" if mine is not None and whole else "-"


def _said(row: Row, name: str, verdict: str) -> str:
    value = row.value(name)
    if value is None:
        return "-"
    return f"{quantities()[name].format.format(value)}{verdict and f' ({verdict})'}"


if __name__ == "__main__":
    main()
