"""The list of jobs on a GPU, or at toy size on the CPU, and the tables of what they measured.

    python -m benchmarks.gpu --minutes 8 --out DIR [--cpu] [--jobs denoiser_speed ...]
    python -m benchmarks.gpu table DIR

Every job leaves DIR/JOB.json, whatever happens to it; the exit code is 0 unless the arguments are wrong. docs/gpu.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from benchmarks.gpu.jobs import JOBS, Job

_NAMES = [job.name for job in JOBS]


def main(arguments: Sequence[str]) -> int:
    """The exit code."""
    if arguments[:1] == ["table"]:
        return _table(_table_parser().parse_args(arguments[1:]).folder)
    given = _parser().parse_args(arguments)
    problem = _problem(given)
    if problem:
        print(problem, file=sys.stderr)
        return 2
    from benchmarks.gpu.runner import run_jobs

    run_jobs(_chosen(given.jobs), given.out, "cpu" if given.cpu else "cuda", 60 * given.minutes)
    return 0


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="for the JSON files; made where missing")
    parser.add_argument("--minutes", type=float, default=8.0, metavar="M", help="of the whole list (8)")
    parser.add_argument("--cpu", action="store_true", help="at toy size on the CPU: to see that it runs")
    parser.add_argument("--jobs", nargs="+", choices=_NAMES, default=_NAMES, metavar="JOB", help=", ".join(_NAMES))
    return parser


def _table_parser() -> argparse.ArgumentParser:
    parser = _Parser("benchmarks.gpu table", description="Markdown tables of what jobs left in DIR.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    return parser


def _problem(given: argparse.Namespace) -> str | None:
    """What is wrong with the arguments, in one line."""
    if not 0 < given.minutes <= 24 * 60:
        return f"--minutes {given.minutes:g}: allowed are numbers above 0, at most {24 * 60}"
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"--out {given.out} is no folder that can be made: {error.strerror}"
    if given.cpu:
        return None
    import torch

    return None if torch.cuda.is_available() else "no CUDA device here; --cpu runs the list at toy size"


def _chosen(names: Sequence[str]) -> list[Job]:
    """The jobs of these names, in the order of the list."""
    return [job for job in JOBS if job.name in names]


def _table(folder: Path) -> int:
    from benchmarks.gpu.table import as_markdown

    files = [path for name in _NAMES if (path := folder / f"{name}.json").is_file()]
    if not files:
        print(f"{folder} holds no file of a job: {', '.join(f'{name}.json' for name in _NAMES)}", file=sys.stderr)
        return 2
    print(as_markdown(files))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
