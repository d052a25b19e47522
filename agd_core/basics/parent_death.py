"""Processes that end when the one that started them is gone, also when it was killed."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.process import BaseProcess

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals = signal.SIGTERM, parent: int | None = None) -> None:
    """Have the kernel send this process a signal when its parent ends; Linux only, elsewhere nothing happens.

    If the parent is gone already, the signal comes at once. The kernel takes the thread that started this process for
    the parent: start it from one that lives on. Children of this process do not inherit the wish.

    Args:
        number: SIGTERM leaves time for a checkpoint, SIGKILL none.
        parent: the parent's process id, where it is known. Without it, a parent that died before this call is noticed
            only by processes that `multiprocessing` started.
    """
    if sys.platform != "linux":
        return
    expected = os.getppid() if parent is None else parent
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"cannot ask for signal {number} at the parent's death")
    if os.getppid() != expected:
        os.kill(os.getpid(), number)
    starter = multiprocessing.parent_process()
    if starter is not None and starter.pid != os.getppid():  # it died before this call, or had a fork server do it
        threading.Thread(target=_follow, args=(starter, number), daemon=True).start()


def _follow(starter: BaseProcess, number: signal.Signals) -> None:
    starter.join()
    os.kill(os.getpid(), number)
