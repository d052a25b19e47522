"""Where a job works and where its numbers go: rows of tables and single facts, in a JSON file that is always whole."""

import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agd_core.basics.atomic import write_json
from agd_core.basics.errors import first_line

FAILED_PARTS = "failed parts"
"""The table of them."""


@dataclass(frozen=True)
class Place:
    """One job's place."""

    job: str
    folder: Path
    """Its file lies there, JOB.json."""
    device_name: str
    """"cuda" or "cpu"."""
    ends_at: float
    """When the job is ended, on `time.monotonic`'s clock, which all processes of a machine share."""
    found: dict[str, Any] = field(default_factory=lambda: {"facts": {}, "tables": {}})
    """What is written, see `row` and `fact`."""

    @property
    def path(self) -> Path:
        """The job's file."""
        return self.folder / f"{self.job}.json"

    @property
    def toy(self) -> bool:
        """Whether this is the list at toy size, which shows that it runs and measures nothing."""
        return self.device_name == "cpu"

    @property
    def seconds_left(self) -> float:
        """Until the job is ended."""
        return self.ends_at - time.monotonic()

    def row(self, table: str, row: Mapping[str, Any]) -> None:
        """Add a line to a table."""
        known = self.found["tables"].setdefault(table, {"columns": [], "rows": []})
        known["columns"] += [name for name in row if name not in known["columns"]]
        known["rows"].append(dict(row))
        print(f"{self.job}: {table}:", ", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        self.write()

    @contextmanager
    def part(self, **names: Any) -> Iterator[None]:
        """A part of the job: what goes wrong inside is written down, and the job goes on; it has failed at its end.

        Args:
            names: of the part, for its line.
        """
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.row(FAILED_PARTS, names | {"error": f"{type(error).__name__}: {first_line(error)}"})

    def fact(self, **facts: Any) -> None:
        """Note what belongs to the whole job."""
        self.found["facts"].update(facts)
        print(f"{self.job}:", ", ".join(f"{name} {value}" for name, value in facts.items()), flush=True)
        self.write()

    def write(self, **ending: Any) -> None:
        """Replace the file; a full disk leaves the one before, and what was measured in the job's output.

        Args:
            ending: how the job ended, where it did.
        """
        self.found.update(ending)
        try:
            write_json({"job": self.job, "device": self.device_name, **self.found}, self.path)
        except OSError as error:
            print(f"{self.path}: not written: {error}", file=sys.stderr, flush=True)
