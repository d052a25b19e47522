"""Markdown tables of what jobs have measured, with the hardware they ran on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_TOY = "**At toy size on a CPU: this shows that the list runs, and measures nothing.**"


def as_markdown(files: Sequence[Path]) -> str:
    """One section per job, in the order given.

    Args:
        files: of jobs; that of `hardware` names the machine.
    """
    jobs = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return "\n\n".join([*_head(jobs), *(_section(job) for job in jobs)])


def _head(jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    named = next((job["facts"] for job in jobs if job["job"] == "hardware"), {})
    machine = ", ".join(str(named[key]) for key in ("device", "torch", "diffusers") if key in named)
    return [machine or "hardware not named", *([_TOY] if any(job["device"] == "cpu" for job in jobs) else [])]


def _section(job: Mapping[str, Any]) -> str:
    reason = f" ({job['reason']})" if job.get("reason") else ""
    head = f"## {job['job']}\n\n{job['status']} after {job['seconds']:g} of {job['limit_seconds']:g} seconds{reason}"
    tables = [f"{name}\n\n{_table(table)}" for name, table in sorted(job["tables"].items())]
    facts = [f"- {name}: {_cell(value)}" for name, value in sorted(job["facts"].items())]
    return "\n\n".join([head, *tables, *(["\n".join(facts)] if facts else [])])


def _table(table: Mapping[str, Any]) -> str:
    columns = table["columns"]
    rows = [[_cell(row.get(column)) for column in columns] for row in table["rows"]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *rows))


def _cell(value: Any) -> str:
    """Numbers to four digits, nothing for None."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return "" if value is None else str(value)
