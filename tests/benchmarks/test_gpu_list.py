"""The list of jobs for a GPU: at toy size on the CPU, and what becomes of jobs that hang, crash or no longer fit."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.jobs import JOBS, Job, limits
from benchmarks.gpu.place import Place
from benchmarks.gpu.runner import in_child, ran, run_jobs
from benchmarks.gpu.table import as_markdown

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "tests.benchmarks.gpu_jobs"
NAMES = [job.name for job in JOBS]
AN_HOUR = 3600.0


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The whole list, once: its exit code and its folder."""
    folder = tmp_path_factory.mktemp("gpu-list") / "out"
    command = [sys.executable, "-m", "benchmarks.gpu", "--cpu", "--minutes", "600", "--out", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode, folder


def test_the_whole_list_runs_at_toy_size(toy):
    code, folder = toy
    found = {name: read(folder, name) for name in NAMES}
    assert {name: (job["status"], job["reason"]) for name, job in found.items()} == dict.fromkeys(NAMES, ("ok", None))
    assert code == 0
    assert sorted(path.stem for path in folder.iterdir()) == sorted(NAMES)


def test_every_job_but_the_first_leaves_rows_of_numbers(toy):
    for name in NAMES:
        tables = read(toy[1], name)["tables"]
        assert tables
        for table in tables.values():
            assert table["rows"]
            assert all(set(row) <= set(table["columns"]) for row in table["rows"])


def test_memory_is_what_the_doctor_predicts(toy):
    tables = read(toy[1], "training_memory")["tables"]
    for row in tables["2 peak of training, as predicted"]["rows"]:
        assert abs(row["error, %"]) < 15
    found, predicted = (tables[name]["rows"] for name in ("3 largest batch", "4 largest batch, as predicted"))
    for one, other in zip(found, predicted, strict=True):
        assert abs(one["found"] - other["predicted"]) <= 1


def test_the_same_chain_on_the_same_device_gives_the_same_numbers(toy):
    tables = read(toy[1], "builtin_chain")["tables"]
    assert {row["difference"] for row in tables["the whole chain"]["rows"]} == {0}
    assert {row["latents, largest difference"] for row in tables["the same inputs"]["rows"]} == {0}


def test_the_tests_for_a_gpu_pass_on_the_cpu_too(toy):
    assert {row["outcome"] for row in read(toy[1], "gpu_tests")["tables"]["tests"]["rows"]} == {"passed"}


def test_the_table_names_the_hardware_and_says_that_toys_measure_nothing(toy, capsys):
    assert main(["table", str(toy[1])]) == 0
    printed = capsys.readouterr().out
    assert read(toy[1], "hardware")["facts"]["device"] in printed
    assert "measures nothing" in printed
    assert all(f"## {name}" in printed for name in NAMES)
    assert "| model | mode | batch | method |" in printed


def test_what_a_crash_had_measured_is_kept_and_the_list_goes_on(tmp_path):
    jobs = [Job(name, 1, 0, PACKAGE) for name in ("crashes", "raises", "half", "works")]
    statuses = run_jobs(jobs, tmp_path, "cpu", AN_HOUR, ())
    assert statuses == {"crashes": "failed", "raises": "failed", "half": "failed", "works": "ok"}
    crashed, raised, half, worked = (read(tmp_path, job.name) for job in jobs)
    assert crashed["reason"] == "ended by SIGKILL"
    assert crashed["tables"]["t"]["rows"] == [{"a": 1}]
    assert raised["reason"] == "ValueError: no moon"
    assert half["reason"] == "1 of its parts failed"
    assert half["tables"]["failed parts"]["rows"] == [{"model": "moon", "error": "ValueError: no moon"}]
    assert half["facts"] == {"went": "on"}
    assert worked["facts"] == {"moons": 1}
    assert worked["reason"] is None


def test_where_nothing_can_be_written_numbers_are_printed_and_the_list_goes_on(tmp_path, capsys):
    (tmp_path / "works.json").mkdir()
    Place("works", tmp_path, "cpu", AN_HOUR).fact(moons=1)
    printed = capsys.readouterr()
    assert printed.out == "works: moons 1\n"
    assert printed.err.startswith(f"{tmp_path / 'works.json'}: not written: ")
    assert run_jobs([Job("works", 1, 0, PACKAGE)], tmp_path, "cpu", AN_HOUR, ()) == {"works": "ok"}


def test_a_job_that_no_longer_fits_is_skipped_with_the_reason(tmp_path):
    assert run_jobs([Job("works", 1, 1e6, PACKAGE)], tmp_path, "cpu", AN_HOUR, ()) == {"works": "skipped"}
    assert read(tmp_path, "works")["reason"] == "3600 seconds were left for it, it needs 1e+06"
    assert read(tmp_path, "works")["tables"] == {}


class UntilItHangs:
    """A process whose limit has come once the job has told who it has started."""

    def __init__(self, process, told):
        self._process, self._told = process, told

    def __getattr__(self, name):
        return getattr(self._process, name)

    def join(self, timeout=None):
        if timeout is None:
            return self._process.join()
        while not self._told.exists():
            time.sleep(0.05)
        return None


def test_a_job_that_hangs_is_ended_with_all_that_it_has_started(tmp_path):
    place = Place("hangs", tmp_path, "cpu", time.monotonic() + AN_HOUR)
    process = multiprocessing.get_context("spawn").Process(target=in_child, args=(f"{PACKAGE}.hangs", place))
    status, reason = ran(UntilItHangs(process, told := tmp_path / "child"), AN_HOUR)
    assert status == "timed out"
    assert "what it had measured is kept" in reason
    assert read(tmp_path, "hangs")["tables"]["t"]["rows"] == [{"a": 1}]
    child = int(told.read_text(encoding="utf-8"))
    while _runs(child):
        time.sleep(0.05)


def _runs(number):
    """Whether there is such a process that is not dead already, waiting for somebody to ask how it ended."""
    stat = Path(f"/proc/{number}/stat")
    return stat.exists() and stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"


def test_what_one_job_leaves_over_the_next_ones_get():
    jobs = (Job("a", 1, 0), Job("b", 3, 0))
    assert limits(jobs, 80) == (20, 60)
    assert limits(jobs[1:], 75) == (75,)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cpu"],
        ["--out", "OUT", "--cpu", "--minutes", "0"],
        ["--out", "OUT", "--cpu", "--minutes", "many"],
        ["--out", "OUT", "--cpu", "--jobs", "moon"],
        ["--out", "FILE", "--cpu"],
        ["table", "OUT"],
        ["table"],
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(arguments, tmp_path, capsys):
    (tmp_path / "FILE").touch()
    places = {"OUT": str(tmp_path / "out"), "FILE": str(tmp_path / "FILE")}
    try:
        code = main([places.get(argument, argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1


def test_numbers_have_four_digits_and_no_number_is_an_empty_cell(tmp_path):
    place = Place("hardware", tmp_path, "cuda", 0.0)
    place.row("t", {"a": 1.23456, "b": "x"})
    place.row("t", {"a": 123456.7, "c": None})
    place.fact(device="a card")
    place.write(status="ok", reason=None, seconds=1.0, limit_seconds=2.0)
    printed = as_markdown([place.path])
    assert printed.startswith("a card\n")
    assert "| a | b | c |\n| --- | --- | --- |\n| 1.235 | x |  |\n| 123457 |  |  |" in printed
    assert "toy" not in printed
