"""What `agd up` looks after while it is up: runs that have crashed, lost their process, or never got one to begin."""

import re
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, StateType

from flows.lab.flow_processes import flow_processes, kill_processes_of, runs_with_a_process
from flows.lab.lab import Lab
from flows.lab.reconcile import end_runs, own_runs
from flows.lab.resume import FOR_A_PERSON, crashed_runs, message_of, resume
from flows.machine.out_of_memory import ADVICE, OUT_OF_MEMORY, KernelKills

_SETTLE_SECONDS = 3.0
"""A crash is reported twice, mostly within a second; both reports are best heard before the run begins again."""
_LOST_SECONDS = 15.0
"""The worker says by itself that a process has ended; this is for when it does not."""
_BARE_SECONDS = 30.0
_LOADING_SECONDS = 300.0
"""A process loads PyTorch and diffusers, perhaps from a slow disk, before its run begins."""
_KILLED = re.compile(r"status code:? -9\b")
"""So both reports of the death say it."""
_KERNEL_SECONDS = 60.0

K = TypeVar("K", bound=Hashable)


class Lasting(Generic[K]):
    """How long things have been so without a break, by somebody who looks again and again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[K, float] = {}

    def seconds(self, things: Iterable[K]) -> dict[K, float]:
        """For each thing that is so now, how long it has been so at every look; the others are forgotten."""
        now = self._clock()
        self._since = {thing: self._since.get(thing, now) for thing in things}
        return {thing: now - since for thing, since in self._since.items()}


class RunWatch:
    """Mends the states of a lab's runs, look by look.

    Args:
        lab: whose runs.
        announce: gets lines for a person.
        clock: counts seconds.
    """

    def __init__(self, lab: Lab, announce: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._lab = lab
        self._announce = announce
        self._crashed, self._lost, self._bare, self._loading = (Lasting[UUID](clock) for _ in range(4))
        self._kernel = KernelKills(clock)

    def look(self, client: SyncPrefectClient) -> None:
        """Look once, and mend what has been wrong for long enough."""
        self._kernel.look()
        active, alive = own_runs(client, self._lab), {process.flow_run for process in flow_processes(self._lab)}
        waiting = [run for run in active if run.state_type == StateType.PENDING]
        self._end_what_never_begins(client, waiting)
        lost = [run for run in active if run not in waiting and run.id not in alive]
        end_runs(client, _lasting(self._lost, lost, _LOST_SECONDS), "its process is gone", self._announce)
        crashed = [run for run in crashed_runs(client) if run.id not in alive]
        for run in _lasting(self._crashed, crashed, _SETTLE_SECONDS):
            resume(client, run, self._memory(message_of(run)), self._announce)

    def _memory(self, message: str) -> str:
        """What a crash has to do with memory: its own word, or the kernel's where the process was killed."""
        if message.startswith(OUT_OF_MEMORY):
            return message
        by_the_kernel = bool(_KILLED.search(message)) and self._kernel.lately(_KERNEL_SECONDS)
        return f"{OUT_OF_MEMORY}, the kernel killed it: {ADVICE}" if by_the_kernel else ""

    def _end_what_never_begins(self, client: SyncPrefectClient, waiting: list[FlowRun]) -> None:
        """Set such runs Crashed for a person to look at: what starts no flow now starts none the next time."""
        loading = runs_with_a_process(self._lab)
        overdue = {
            "no process came": _lasting(self._bare, [run for run in waiting if run.id not in loading], _BARE_SECONDS),
            f"its process did not begin it within {_LOADING_SECONDS:g} s": _lasting(
                self._loading, [run for run in waiting if run.id in loading], _LOADING_SECONDS
            ),
        }
        for reason, runs in overdue.items():
            end_runs(
                client, runs, f"{reason}; read {self._lab.folder / 'worker.log'}, then {FOR_A_PERSON}", self._announce
            )
            for run in runs:  # after its state, which the worker's report of the death does not change then
                kill_processes_of(self._lab, run.id)


def _lasting(so_far: Lasting[UUID], runs: list[FlowRun], seconds: float) -> list[FlowRun]:
    """The runs that have been in their state, at every look, for so long."""
    lasted = so_far.seconds(run.state_id or run.id for run in runs)
    return [run for run in runs if lasted[run.state_id or run.id] >= seconds]
