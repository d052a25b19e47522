"""How every command runs: in a workplace, with progress on the terminal; what goes wrong is one line and a code.

Exit codes: 0 done, 1 a finding or a failing machine, 2 bad input, 130 stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agd_core.basics.errors import InputError, NumericError
from agd_core.basics.progress import Stopped
from flows.printing import print_error, print_json, print_line

if TYPE_CHECKING:
    from flows.workplace import Workplace

PresetOrFile = Annotated[
    str, typer.Argument(help="A preset's name (see `agd presets`) or a .yaml file of the same form.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set train.steps=500.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]

DEFAULT_OUTPUT = Path("outputs")
"""Where a command works that is told no folder."""


@contextmanager
def in_workplace(output: Path, device: str = "cpu") -> Iterator[Workplace]:
    """A workplace in an output folder, on a device, with progress on the terminal."""
    from flows.terminal import Terminal
    from flows.workplace import Workplace, output_folder, pick_device

    with one_line(output), Terminal() as terminal:
        picked = pick_device(device)
        yield Workplace(output_folder(output), picked, terminal.announce, terminal.progress, terminal.should_stop)


def show(result: dict[str, Any], lines: Iterable[str], as_json: bool) -> None:
    """What a command found: as one JSON object, or as lines for people."""
    if as_json:
        print_json(result)
    else:
        for line in lines:
            print_line(line)


@contextmanager
def one_line(output: Path | None = None) -> Iterator[None]:
    """End the command with one line on standard error and an exit code if its work fails.

    Args:
        output: where the work writes, told where the system's error names no file.
    """
    try:
        yield
    except InputError as error:
        _end(str(error), 2)
    except (Stopped, KeyboardInterrupt) as stop:
        _end(str(stop) or "interrupted; run the same command again to resume", 130)
    except NumericError as error:
        _end(str(error), 1)
    except OSError as error:
        named = error.filename is not None or output is None
        _end(str(error) if named else f"{error}, working in {output}", 1)
    except (RuntimeError, MemoryError) as error:
        from flows.machine.out_of_memory import memory_line

        if not (line := memory_line(error)):
            raise
        _end(line, 1)


def _end(message: str, code: int) -> None:
    print_error(message)
    raise typer.Exit(code) from None
