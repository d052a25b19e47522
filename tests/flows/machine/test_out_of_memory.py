"""Memory that ran out is one line with what to try, whoever says so."""

from contextlib import nullcontext

import httpx
import pytest
import torch
import typer
from prefect.states import Crashed

from flows.cli.options import one_line
from flows.lab import running
from flows.machine.out_of_memory import KernelKills, memory_line

CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 3 GiB is free. "
    "Including non-PyTorch memory, this process has 75 GiB in use.\nSee documentation for Memory Management"
)


def too_much():
    """What PyTorch's allocator for the CPU really says."""
    torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError(CUDA), MemoryError(), MemoryError("Unable to allocate 9 GiB")]
)
def test_it_is_one_line_with_what_to_try(error):
    line = memory_line(error)
    assert line.startswith("out of memory")
    assert "\n" not in line
    assert "train.batch_size" in line
    assert "agd doctor" in line
    assert len(line) < 300


def test_the_size_that_was_asked_for_is_kept():
    assert "Tried to allocate 20.00 GiB" in memory_line(torch.OutOfMemoryError(CUDA))


def test_the_cpus_own_error_is_known():
    with pytest.raises(RuntimeError) as error:
        too_much()
    assert memory_line(error.value).startswith("out of memory")


def test_other_errors_are_not():
    assert memory_line(RuntimeError("size mismatch")) is None


def test_the_command_line_says_it_and_ends_with_1(capsys):
    with pytest.raises(typer.Exit) as ended, one_line():
        too_much()
    assert ended.value.exit_code == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("agd: out of memory")


@pytest.mark.parametrize(("error", "said"), [
    (torch.OutOfMemoryError(CUDA), "out of memory"),
    (ChildProcessError("DataLoader worker is gone"), "DataLoader worker is gone"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "DataLoader worker (pid 7)"),
    (httpx.ConnectError("[Errno 111] Connection refused"), "the Prefect server could not be reached: [Errno 111]"),
])  # fmt: skip
def test_a_run_of_the_lab_crashes_with_it_so_that_it_is_tried_again(monkeypatch, tmp_path, error, said):
    monkeypatch.setattr(running, "_workplace", lambda *arguments: None)
    monkeypatch.setattr(running, "GpuSlot", nullcontext)  # it only shows something, and needs a server for that

    def work(place):
        raise error

    state = running.run_in_lab(str(tmp_path), work)
    assert state.name == Crashed().name
    assert state.message.startswith(said)
    assert "\n" not in state.message


def test_the_kernels_count_says_when_it_last_killed(tmp_path):
    counts, now = tmp_path / "vmstat", 0.0
    counts.write_text("nr_free_pages 12\noom_kill 3\nzswpin 0\n")
    kernel = KernelKills(lambda: now, counts)
    kernel.look()
    assert not kernel.lately(60)
    counts.write_text("nr_free_pages 12\noom_kill 4\nzswpin 0\n")
    kernel.look()
    now = 60.0
    assert kernel.lately(60)
    now = 61.0
    assert not kernel.lately(60)


def test_a_machine_that_does_not_count_is_no_error(tmp_path):
    KernelKills(counts=tmp_path / "none").look()
