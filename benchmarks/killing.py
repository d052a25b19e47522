"""Processes that are killed at a random moment, for the kill benchmarks.

The parent imports everything once and then only forks, so a fresh worker costs milliseconds and a kill is cheap. It
must not compute itself: threads do not survive a fork.
"""

import argparse
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agd_core.basics.parent_death import die_with_parent

TIMEOUT_SECONDS = 300.0
KILLED = -signal.SIGKILL


def start(work: Callable[[], Any]) -> int:
    """Do this in a process of its own, which does not outlive this one; returns its id."""
    sys.stdout.flush()
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        die_with_parent(signal.SIGKILL, parent)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def wait(process: int) -> int:
    """How a process ended: 0, another exit code, or minus a signal.

    Raises:
        TimeoutError: it hangs; it is killed.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (found := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            raise TimeoutError(f"a process did not end in {TIMEOUT_SECONDS:g} s")
        time.sleep(0.001)
    return os.waitstatus_to_exitcode(found[1])


def kill(process: int) -> None:
    """SIGKILL; it may have ended already, but must not have been waited for."""
    os.kill(process, signal.SIGKILL)


def answer(work: Callable[[], Any]) -> Any:
    """What `work` returns, computed in a process of its own; plain data.

    Raises:
        RuntimeError: it failed; its traceback was printed.
    """
    read_end, write_end = os.pipe()
    process = start(lambda: os.write(write_end, json.dumps(work()).encode()))
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        data = pipe.read()
    if wait(process) != 0:
        raise RuntimeError("a checking process failed")
    return json.loads(data)


def append_line(path: Path, entry: Any) -> None:
    """Add a line to a log that several processes share."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{json.dumps(entry)}\n".encode())
    finally:
        os.close(descriptor)


def lines(path: Path) -> list[Any]:
    """All lines of a log; none if it was not begun."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def command_line(description: str, kills: int) -> argparse.ArgumentParser:
    """The options that every kill script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=kills)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", action="store_true")
    return parser


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print the measured numbers."""
    if as_json:
        print(json.dumps(result, indent=2))
        return
    width = max(map(len, result))
    for name, value in result.items():
        print(f"{name:<{width}}  {value}")
