"""Sees what a process reads, writes, asks and starts, and reports what lies outside the folders that it was given."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
_ASKS = {"socket.connect", "socket.getaddrinfo", "socket.sendto"}
_STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def watch(forbidden: Path, writable: Sequence[Path], report: Callable[[str], None]) -> None:
    """From now on, report every touch of `forbidden`, every change outside `writable`, and every connection.

    An audit hook of Python's own (PEP 578): it sees what goes through Python; readers in C++ and Rust are held to
    account by the state of the forbidden folder afterwards. It cannot be taken off.
    """
    forbidden, rooms = forbidden.resolve(), [room.resolve() for room in writable]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _ASKS | _STARTS:
            report(f"{event} {arguments[0]!r} {arguments[1:2]!r}")
        elif event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            _judge("open a name" if flags & os.O_NOFOLLOW else event, arguments[0], bool(flags & _WRITING))
        elif event in _CHANGES:
            for name in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                if isinstance(name, str | bytes | os.PathLike):
                    _judge(event, name, True)

    def _judge(event: str, name: str | bytes | os.PathLike[str], changes: bool) -> None:
        path = os.fsdecode(os.fspath(name))
        if "\0" in path:
            return
        parent, last = os.path.split(path.rstrip("/"))
        real = os.path.realpath(path) if event == "open" else os.path.join(os.path.realpath(parent or "."), last)
        if Path(real).is_relative_to(forbidden):
            report(f"{event} {'changes' if changes else 'reads'} {real}")
        elif changes and not any(Path(real).is_relative_to(room) for room in rooms) and not real.startswith("/dev/"):
            report(f"{event} changes {real}")

    sys.addaudithook(hook)
