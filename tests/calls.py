"""How many calls of ours lie between where a person sets something and where it acts."""

import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(f"{ROOT / package}/" for package in ("flows", "storage", "agd_core"))
BESIDE = ("gpu-slot",)
"""Threads that do no part of the work."""
NO_CALLS = ("<listcomp>", "<genexpr>", "<setcomp>", "<dictcomp>")
"""Frames of comprehensions, which later versions of Python do not have."""


def calls_of_ours():
    """The functions of this project that stand on the stacks of all threads, where one waits for another."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = []
    for ident, top in sys._current_frames().items():
        frame = None if names.get(ident) in BESIDE else top
        while frame:
            if frame.f_code.co_filename.startswith(OURS) and frame.f_code.co_name not in NO_CALLS:
                found.append(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}")
            frame = frame.f_back
    return found


def watch(monkeypatch, module, name):
    """Replace a function of a module by itself, and answer the list of the calls that led to each call of it."""
    seen, call = [], getattr(module, name)

    def watched(*arguments):
        seen.append([name, *calls_of_ours()])
        return call(*arguments)

    monkeypatch.setattr(module, name, watched)
    return seen
