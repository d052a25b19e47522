"""What a command prints, and what it does where nobody takes it."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.printing import print_error, print_line, print_table
from flows.terminal import Terminal

NASTY = "a\x1b[2Jb\r\nc[red]d\udce9:smile:"
SHOWN = r"a\x1b[2Jb\r\nc[red]d\udce9:smile:"


def test_a_name_is_shown_and_not_obeyed(capsys):
    print_line(f"artefact {NASTY}")
    print_error(NASTY)
    Terminal().announce(NASTY)
    printed = capsys.readouterr()
    assert printed.out == f"artefact {SHOWN}\n"
    assert printed.err == f"agd: {SHOWN}\n{SHOWN}\n"


def test_a_table_keeps_its_line_breaks_and_nothing_else(capsys):
    print_table(["[b]name", "x\x07"], [["one\ntwo\x1b[2J", NASTY]], title="t\x1b[0m")
    printed = capsys.readouterr().out
    assert all(
        text in printed for text in ("[b]name", r"x\x07", "one", r"two\x1b[2J", "c[red]d", ":smile:", r"t\x1b[0m")
    )
    assert "\x1b" not in printed


def test_verify_names_a_file_with_an_odd_name_in_one_line(tmp_path):
    (tmp_path / "artefacts" / "x\n\x1b[31mok: 1 artefacts").mkdir(parents=True)
    answer = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert answer.exit_code == 1
    assert r"x\n\x1b[31mok: 1 artefacts" in answer.stdout
    assert "\x1b" not in answer.stdout


def presets(**streams):
    command = [sys.executable, "-m", "flows.cli", "presets"]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120, check=False, **streams)


def test_a_full_device_is_one_line():
    with open("/dev/full", "w") as full:
        answer = presets(stdout=full)
    assert (answer.returncode, answer.stderr) == (1, "agd: standard output: No space left on device\n")


def test_a_reader_that_has_gone_is_no_error_to_tell():
    reading, writing = os.pipe()
    os.close(reading)
    answer = presets(stdout=writing)
    os.close(writing)
    assert (answer.returncode, answer.stderr) == (1, "")


@pytest.mark.parametrize("closed", [(1,), (0, 1)])
def test_a_closed_output_is_one_line_and_its_number_is_taken(closed):
    answer = presets(preexec_fn=lambda: [os.close(stream) for stream in closed])
    assert (answer.returncode, answer.stderr) == (1, "agd: standard output: Bad file descriptor\n")


@pytest.mark.parametrize("command", ["export", "import"])
def test_who_names_no_format_is_told_the_formats(command):
    answer = CliRunner().invoke(app, [command, "outputs"])
    assert answer.exit_code == 2
    assert answer.stderr.startswith("agd: 'outputs' is no format; allowed: webdataset, archive")
    assert all(name in CliRunner().invoke(app, [command, "--help"]).stdout for name in ("webdataset", "archive"))
