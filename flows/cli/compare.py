"""`agd compare`: adapters or reports side by side, with intervals and a verdict."""

from pathlib import Path
from typing import Annotated

import typer

from agd_core.evaluation.protocol import FIELDS
from flows.cli.options import Json, one_line
from flows.printing import print_json

Places = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULTS",
        help="Two or more output folders, reports, published adapters or metrics.json files; A, the first, is the "
        "baseline.",
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="FIELD",
        help=f"Compare although this part of the protocol differs: {', '.join(FIELDS)}; or, with `edited`, "
        "numbers that are not as a run wrote them.",
    ),
]
Metrics = Annotated[list[str] | None, typer.Option("--metric", metavar="NAME", help="Only this metric, e.g. fd.")]
MethodNames = Annotated[
    list[str] | None,
    typer.Option("--method", metavar="NAME", help="Only rows of this name, e.g. CFG; else all adapters."),
]


def compare(
    places: Places,
    allow: Allow = None,
    metric: Metrics = None,
    method: MethodNames = None,
    as_json: Json = False,
) -> None:
    """Compare adapters or reports at 95 %: better, same or worse than A, or not comparable and why."""
    from agd_core.evaluation.comparing.comparison import Choice
    from flows.cli.comparison_tables import print_comparisons
    from flows.comparing import compared

    with one_line():
        found = compared(places, Choice(allow or (), metric or (), method or ()))
    if as_json:
        print_json(found)
    else:
        print_comparisons(found)
