"""One damaged input in a process of its own: what came of it, and what was wrong about that."""

import contextlib
import faulthandler
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agd_core.basics.digest import file_digest
from tests.fuzz.damage import OUTSIDE, damage
from tests.fuzz.readers import Reader, make_output
from tests.fuzz.watch import watch

MOST_SECONDS = 20
MOST_MEMORY = 12 << 30
PRIVATE = {"HOME": "home", "TMPDIR": "temporary", "AGD_LEASE_FOLDER": "leases"}
"""Folders of the process's own, by the variable that names them."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TOUCH = "outside the given folder: "


@dataclass(frozen=True)
class Outcome:
    """How one input ended."""

    damage: str
    end: str
    """"0", "1", "2", or "else"."""
    said: str
    faults: tuple[str, ...]


class Templates:
    """A good folder per reader, made when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.output = root / "good-output"
        for variable, name in PRIVATE.items():
            (root / name).mkdir()
            os.environ[variable] = str(root / name)
        tempfile.tempdir = None  # it remembers another TMPDIR

    def copy(self, reader: Reader, target: Path) -> None:
        """A fresh copy of the reader's good folder."""
        if not self.output.exists():
            make_output(self.output)
        good = self.root / "good" / reader.name
        if not good.exists():
            good.mkdir(parents=True)
            reader.make(good, self.output)
        shutil.copytree(good, target, symlinks=True)


def run_seed(reader: Reader, seed: int, templates: Templates, most_seconds: int = MOST_SECONDS) -> Outcome:
    """Damage a copy of the reader's folder with this seed, read it, and judge what happened."""
    work = templates.root / "work"
    shutil.rmtree(work, ignore_errors=True)
    outside = work / OUTSIDE
    outside.mkdir(parents=True)
    (outside / "secret.txt").write_text("ten years of work")
    (outside / "download.partial").write_text("in progress")
    (work / "made").mkdir()
    templates.copy(reader, work / "given")
    done = damage(work / "given", seed)
    before = _state(outside)
    status, seconds = _in_child(reader, work, most_seconds)
    said = (work / "said").read_text(encoding="utf-8", errors="backslashreplace")
    faults = [*_wrong_end(status, seconds > most_seconds, said), *_touched(work, reader)]
    faults += [] if _state(outside) == before else ["the folder outside was changed"]
    code = os.waitstatus_to_exitcode(status)
    return Outcome(done, str(code) if code in (0, 1, 2) else "else", said, tuple(faults))


def _in_child(reader: Reader, work: Path, most_seconds: int) -> tuple[int, float]:
    started = time.monotonic()
    if (child := os.fork()) == 0:
        _be_the_child(reader, work, most_seconds)
    _, status = os.waitpid(child, 0)
    return status, time.monotonic() - started


def _be_the_child(reader: Reader, work: Path, most_seconds: int) -> None:
    """Read the damaged folder as the command would; ends the process."""
    said = os.open(work / "said", os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    code = 70
    try:
        os.setsid()
        sys.dont_write_bytecode = True  # compiled modules are no change that a reader makes
        faulthandler.dump_traceback_later(most_seconds, exit=True)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = _read_watched(reader, work)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _read_watched(reader: Reader, work: Path) -> int:
    from agd_core.basics.errors import InputError

    touched = os.open(work / "touched", os.O_WRONLY | os.O_CREAT, 0o600)
    os.chdir(work / "made")
    rooms = [work / "given", work / "made", *(work.parent / name for name in PRIVATE.values())]
    watch(work / OUTSIDE, rooms, lambda line: os.write(touched, f"{line}\n".encode()) and None)
    try:
        arguments = reader.read(work / "given")
    except InputError as error:
        print(f"agd: {error}")
        return 2
    return _command(arguments) if arguments else 0


def _command(arguments: list[str]) -> int:
    from flows.cli import main

    sys.argv = ["agd", *arguments]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def _wrong_end(status: int, too_long: bool, said: str) -> list[str]:
    code, found = os.waitstatus_to_exitcode(status), []
    if "Traceback" in said or "Timeout (" in said:
        lines = [line for line in said.splitlines() if line.strip()]
        found.append(f"{'hangs' if 'Timeout (' in said else 'traceback'}: {lines[-1][:300]!r}")
    if code not in (0, 1, 2):
        found.append(f"ends with {signal.Signals(-code).name if code < 0 else code}")
    if too_long:
        found.append("takes too long")
    if code == 2 and "agd: " not in said and "Usage" not in said:
        found.append(f"says no line: {said[-200:]!r}")
    if control := _CONTROL.search(said):
        found.append(
            f"prints the control character {control.group()!r}: {said[max(0, control.start() - 60) :][:120]!r}"
        )
    return found


def _touched(work: Path, reader: Reader) -> list[str]:
    lines = (work / "touched").read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    wrong = [line for line in lines if not (reader.follows_links and " reads " in line)]
    return [_TOUCH + line for line in dict.fromkeys(wrong)][:3]


def _state(folder: Path) -> dict[str, Any]:
    """Every file below with its content."""
    return {str(path.relative_to(folder)): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}
