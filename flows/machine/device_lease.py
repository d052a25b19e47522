"""One GPU means one GPU: a lease per device, which every run on the machine takes before it computes there.

It needs no server: it is a kernel lock on one small file per device, so it is free at once when its holder is killed.
The file is also the log of who held it. A forked child inherits the lock, so none may outlive its parent
(`agd_core.basics.parent_death`). AGD_LEASE_FOLDER names another folder for these
files; AGD_LEASE=off does without leases.
"""

import fcntl
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import torch

from agd_core.basics.errors import InputError
from agd_core.basics.progress import ShouldStop, never
from flows.machine.file_lock import is_named, make_shared_folder, open_shared, try_lock, wait_until

_HINT = "AGD_LEASE_FOLDER names another folder, AGD_LEASE=off does without"
_LOG_BYTES = 1 << 20
_LINE_BYTES = 4096


@contextmanager
def hold_device(
    device: torch.device,
    what: str,
    announce: Callable[[str], None] = lambda line: None,
    should_stop: ShouldStop = never,
) -> Iterator[None]:
    """Be the only process that computes on a device, for as long as the block runs.

    The holder is the process: a second hold within it, nested or in another thread, is free, and the last one to end
    gives the device back.

    Args:
        device: a GPU is known by its UUID, whatever its index is here.
        what: the work in words, for those who wait.
        announce: told once who holds the device, if somebody does.
        should_stop: asked while waiting.

    Raises:
        InputError: the lease file cannot be used, or AGD_LEASE is neither on nor off.
        Stopped: asked to, while waiting.
    """
    if not _switched_on():
        yield
        return
    path = lease_file(device)
    with _one_clear_line(path):
        make_shared_folder(path.parent)
    lease = _lease(path)
    wait_until(lambda: lease.take(what), lambda: f"{device}: held by {lease.holder()} ({_HINT})", announce, should_stop)
    with ExitStack() as leaving:
        leaving.callback(lease.give_back)
        leaving.callback(_leave_empty, device)
        yield


def lease_file(device: torch.device) -> Path:
    """The file that is locked, and holds the log of acquisitions, one JSON object per line."""
    folder = Path(os.environ.get("AGD_LEASE_FOLDER") or Path(tempfile.gettempdir(), "agd-leases"))
    return folder.absolute() / f"{device_name(device)}.jsonl"


def device_name(device: torch.device) -> str:
    """What a device is called on the whole machine: "cpu", or "cuda-" and the GPU's UUID (else its index)."""
    if device.type != "cuda":
        return device.type
    index = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda-{getattr(torch.cuda.get_device_properties(index), 'uuid', index)}"


def acquisitions(device: torch.device) -> list[dict[str, Any]]:
    """The log of a device, oldest entry first; a log of more than 1 MiB is begun anew.

    Every entry is written while the device is held: `event` ("acquired" or "released"; a killed holder leaves no
    "released"), `device`, `pid`, `host`, `what`, `time` (ISO 8601) and `monotonic` (seconds on the machine's clock,
    the same for all processes).
    """
    path = lease_file(device)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


class _Lease:
    """This process's hold on one lease file; a forked child shares its parent's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._users = 0
        self._what = ""
        self._descriptor = -1
        self._mutex = threading.Lock()

    def take(self, what: str) -> bool:
        """Become one more user of the device, if this process holds it or it is free."""
        with self._mutex, _one_clear_line(self._path):
            if not self._users and not self._acquired(what):
                return False
            self._users += 1
            return True

    def give_back(self) -> None:
        """The last user frees the device."""
        with self._mutex:
            self._users -= 1
            if self._users:
                return
            with suppress(OSError):
                self._log("released")
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)  # closing is not enough while a forked child has it open
            os.close(self._descriptor)

    def holder(self) -> str:
        """Who holds the device, in words, by the last line of the log."""
        with suppress(OSError, ValueError, LookupError):
            with self._path.open("rb") as file:
                file.seek(max(0, self._path.stat().st_size - _LINE_BYTES))
                last = json.loads(file.read().splitlines()[-1])
            if last["event"] == "acquired":
                host = "" if last["host"] == platform.node() else f" on {last['host']}"
                return f"process {last['pid']}{host} since {_clock(last['time'])}, {last['what']}"
        return "another process"

    def _acquired(self, what: str) -> bool:
        with ExitStack() as opened:
            descriptor = open_shared(self._path)
            opened.callback(os.close, descriptor)
            if not try_lock(descriptor) or not is_named(descriptor, self._path):
                return False
            if os.fstat(descriptor).st_size > _LOG_BYTES:
                os.ftruncate(descriptor, 0)
            self._descriptor, self._what = descriptor, what
            self._log("acquired")
            opened.pop_all()
        return True

    def _log(self, event: str) -> None:
        entry = {
            "event": event,
            "device": self._path.stem,
            "pid": os.getpid(),
            "host": platform.node(),
            "what": self._what,
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
            "monotonic": time.monotonic(),
        }
        os.write(self._descriptor, f"{json.dumps(entry)}\n".encode())


@cache
def _lease(path: Path) -> _Lease:
    """The one of this process: the kernel's lock, too, belongs to the process and not to who asks."""
    return _Lease(path)


def _switched_on() -> bool:
    value = os.environ.get("AGD_LEASE") or "on"
    if value not in ("on", "off"):
        raise InputError(f"AGD_LEASE is {value!r}; allowed: on, off")
    return value == "on"


@contextmanager
def _one_clear_line(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        link = next((p for p in (path.parent, path) if p.is_symlink()), None)
        reason = f"{link} is a symbolic link" if link else error.strerror
        raise InputError(f"the device's lease {path} cannot be used: {reason}; {_HINT}") from error


def _leave_empty(device: torch.device) -> None:
    """Let the next holder find a GPU where nothing runs on, and whose free memory is free for it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


def _clock(time: str) -> str:
    """Hour and minute; with the date, if that is not today."""
    then = datetime.fromisoformat(time).astimezone()
    return then.strftime("%H:%M" if then.date() == datetime.now().date() else "%Y-%m-%d %H:%M")
