"""Runs jobs one after the other, each in a process group of its own: a crash, a hang or a full GPU ends one job."""

import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from agd_core.basics.parent_death import die_with_parent
from benchmarks.gpu.jobs import Job, limits
from benchmarks.gpu.place import FAILED_PARTS, Place

OK, FAILED, TIMED_OUT, SKIPPED = "ok", "failed", "timed out", "skipped"
PRELOADED = (
    "benchmarks.gpu.builtin_chain",
    "benchmarks.gpu.denoiser_speed",
    "benchmarks.gpu.store_waits",
    "benchmarks.gpu.training_memory",
    "benchmarks.gpu.training_speed",
    "diffusers.models.transformers.dit_transformer_2d",
    "diffusers.models.transformers.transformer_sd3",
    "diffusers.models.unets.unet_2d_condition",
)
"""What jobs import: on the CPU all are forked off one process that has done so. CUDA does not survive a fork."""
_LAST_LINES = 12
"""Of a traceback that are kept."""


def run_jobs(
    jobs: Sequence[Job], folder: Path, device_name: str, seconds: float, preloaded: Sequence[str] = PRELOADED
) -> dict[str, str]:
    """Every job's status by its name; never raises over what a job does.

    Args:
        jobs: in the order in which they run.
        folder: for JOB.json of each.
        device_name: "cuda", or "cpu" for toy sizes.
        seconds: of all jobs together.
        preloaded: see `PRELOADED`.
    """
    context = multiprocessing.get_context("forkserver" if device_name == "cpu" else "spawn")
    context.set_forkserver_preload(list(preloaded))
    ends_at = time.monotonic() + seconds
    statuses: dict[str, str] = {}
    for index, job in enumerate(jobs):
        started = time.monotonic()
        limit = limits(tuple(jobs[index:]), ends_at - started)[0]
        place = Place(job.name, folder, device_name, started + limit)
        place.write(status="running", reason=None, limit_seconds=round(limit, 1), seconds=0.0)
        status, reason = _skipped(job, limit) or ran(context.Process(target=in_child, args=(job.module, place)), limit)
        statuses[job.name] = status
        _finish(place, status, reason, time.monotonic() - started)
    return statuses


def in_child(module: str, place: Place) -> None:
    """Run one job here, in a process group of its own; what goes wrong is written down."""
    os.setsid()
    die_with_parent(signal.SIGKILL)
    try:
        import_module(module).run(place)
    except BaseException:
        lines = traceback.format_exc().splitlines()
        place.write(traceback=lines[-_LAST_LINES:])
        raise
    finally:
        place.write(cpu_seconds=round(time.process_time(), 1))
    if failed := place.found["tables"].get(FAILED_PARTS):
        place.write(traceback=[f"{len(failed['rows'])} of its parts failed"])
        sys.exit(1)


def _skipped(job: Job, limit: float) -> tuple[str, str] | None:
    """The status of a job that no longer fits."""
    if limit >= job.least_seconds:
        return None
    return SKIPPED, f"{max(limit, 0):.0f} seconds were left for it, it needs {job.least_seconds:g}"


def ran(process: BaseProcess, limit: float) -> tuple[str, str | None]:
    """Run a process to its end or to its limit, its start included: (status, reason)."""
    started = time.monotonic()
    process.start()
    process.join(max(0.0, limit + started - time.monotonic()))
    late = process.exitcode is None
    with suppress(ProcessLookupError):  # also what the job itself has started and left behind
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.kill()  # where it has no group of its own yet
    process.join()
    if late:
        return TIMED_OUT, f"ended after {limit:.0f} seconds; what it had measured is kept"
    return (OK, None) if process.exitcode == 0 else (FAILED, _ending(process.exitcode or 0))


def _ending(code: int) -> str:
    return f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"


def _finish(place: Place, status: str, reason: str | None, seconds: float) -> None:
    """Write how a job ended into the file that it has left."""
    left: dict[str, Any] = json.loads(place.path.read_text(encoding="utf-8")) if place.path.is_file() else {}
    place.found.update(left)
    if status == FAILED and left.get("traceback"):
        reason = left["traceback"][-1]
    place.write(status=status, reason=reason, seconds=round(seconds, 1))
    print(f"{place.job}: {status} after {seconds:.0f} seconds" + (f": {reason}" if reason else ""), flush=True)
