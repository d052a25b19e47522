"""How the registered adapters stand: the verdicts of each one's last night."""

from pathlib import Path
from typing import Any

from flows.registry import Entry, registered
from flows.stages.verdicts import open_history, verdicts_of_night


def standing(output: Path) -> dict[str, Any]:
    """Every registered adapter with its last scores, as plain data.

    Returns:
        `adapters` by name, and `problems`: one line per damaged file of registry or history.
    """
    entries, problems = registered(output)
    torn = open_history(output).read().problems
    return {"adapters": [_stands(entry, output) for entry in entries], "problems": [*problems, *torn]}


def _stands(entry: Entry, output: Path) -> dict[str, Any]:
    records = open_history(output).read(entry.name).records
    nights = sorted({record.night for record in records})
    last = nights[-1] if nights else None
    return {
        "name": entry.name,
        "folder": entry.folder,
        "preset": entry.preset,
        "overrides": list(entry.overrides),
        "registered_at": entry.registered_at,
        "nights": len(nights),
        "last_night": last,
        "metrics": {metric: verdict.as_dict() for metric, verdict in verdicts_of_night(records, last).items()},
    }
