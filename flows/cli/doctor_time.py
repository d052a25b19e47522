"""What `agd doctor --time` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.printing import print_line, print_table

_MINUTE, _HOUR = 60.0, 3600.0


def show_time(found: Mapping[str, Any]) -> None:
    """The table of stages with the whole run's time."""
    rows = [
        (
            stage["stage"],
            stage["repeated"],
            f"{stage['times']:,.4g}" if stage["times"] < 1 else f"{stage['times']:,.0f}",
            in_words(stage["seconds_each"]),
            in_words(stage["seconds"]),
        )
        for stage in found["stages"]
    ]
    title = f"{found['preset']} on {found['device']}, {found['dtype']}"
    print_table(("stage", "repeated", "times", "each", "predicted"), rows, title=title)
    for note in found["notes"]:
        print_line(f"note: {note}")
    print_line(f"the whole run: about {in_words(found['seconds'])}")


def in_words(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds >= _HOUR:
        return f"{seconds / _HOUR:,.3g} hours"
    if seconds >= 2 * _MINUTE:
        return f"{seconds / _MINUTE:.3g} minutes"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
