"""SIGTERM and Ctrl-C as a wish to stop at the next safe point: what a person, Prefect or a cluster sends."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """While entered, the first signal sets `stopping`; a second one raises KeyboardInterrupt.

    Python hands signals to the main thread only; entered in another thread it never stops anything.

    Args:
        on_first: called once, at the first signal.
    """

    def __init__(self, on_first: Callable[[], None] = lambda: None) -> None:
        self.stopping = False
        self._on_first = on_first

    def __enter__(self) -> Self:
        here = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
        self._previous = {number: signal.signal(number, self._on_signal) for number in here}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        self._on_first()
