"""What a command prints. Names and texts out of files are shown by a terminal and never obeyed by it."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from agd_core.basics.safe_files import printable

_PIPE_COLUMNS = 140
_STREAMS = (0, 1, 2)


def print_line(line: object) -> None:
    """One line on standard output, whatever is in it."""
    print(printable(line))


def print_error(message: object) -> None:
    """What went wrong, as one line on standard error."""
    print(f"agd: {printable(message)}", file=sys.stderr)


def print_json(value: Any) -> None:
    """One JSON object on standard output; ASCII, so no terminal obeys it."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", caption: str = "", lines: bool = False
) -> None:
    """A table on standard output, 140 columns wide where that is no terminal.

    Args:
        headings: one per column.
        rows: a text per column; line breaks stay, every other control character is made visible.
        title: stands above it.
        caption: stands below it.
        lines: draw a line between rows.
    """
    from rich.console import Console
    from rich.table import Table

    shown = [_cell(heading) for heading in headings]
    table = Table(*shown, title=_cell(title) or None, caption=_cell(caption) or None, show_lines=lines)
    for row in rows:
        table.add_row(*(_cell(text) for text in row))
    terminal = Console(markup=False, emoji=False)
    (terminal if terminal.is_terminal else Console(markup=False, emoji=False, width=_PIPE_COLUMNS)).print(table)


def _cell(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def number(value: float | None) -> str:
    """A measured number; None where there is none."""
    return "no number" if value is None else f"{value:.4g}"


@contextmanager
def standard_streams() -> Iterator[None]:
    """Run a command; a standard output that is closed, full or no longer read ends it as it ends other tools.

    That is exit code 1, with one line unless the reader has gone. Streams that are closed at the start are opened
    anew, so that no file of ours takes their numbers and is printed into.
    """
    with ExitStack() as opened:
        _occupy_closed(opened)
        try:
            try:
                yield
            finally:
                sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more as it ends
            if not isinstance(error, BrokenPipeError):
                print_error(f"standard output: {error.strerror}")
            sys.exit(1)


def _occupy_closed(opened: ExitStack) -> None:
    """Take the numbers of closed streams; what is printed there fails, as it does in other tools."""
    for stream in _STREAMS:
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free number, which is this one
    if sys.stdout is None:
        opened.enter_context(redirect_stdout(os.fdopen(1, "w", encoding="utf-8", closefd=False)))
    if sys.stderr is None:
        opened.enter_context(redirect_stderr(os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")))
