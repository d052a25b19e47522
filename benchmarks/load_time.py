"""How long a built-in model takes from a new process to its first picture being possible: imports and loading.

python benchmarks/load_time.py [NAME] [--rounds 5]

Of every round: diffusers' own pipeline, and our base model; the median of wall and CPU seconds, imports included.
"""

import argparse
import statistics
import subprocess
import sys
from resource import RUSAGE_CHILDREN, getrusage
from time import perf_counter

from agd_core.models.sources import builtin_folder

WAYS = {
    "diffusers' pipeline": "from diffusers import DiffusionPipeline; DiffusionPipeline.from_pretrained({folder!r})",
    "our base model": (
        "import torch; from agd_core.models.config import BaseModelConfig; "
        "BaseModelConfig(source='builtin:{name}').build(torch.device('cpu')).pipeline_digest()"
    ),
}


def seconds(program: str) -> tuple[float, float]:
    """(wall, CPU) of a new process."""
    started, before = perf_counter(), getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    wall, after = perf_counter() - started, getrusage(RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print a line per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="emoji-sd")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    folder = str(builtin_folder(asked.name))
    found = [
        {way: seconds(program.format(folder=folder, name=asked.name)) for way, program in WAYS.items()}
        for _ in range(asked.rounds)
    ]
    for way in WAYS:
        wall, cpu = (statistics.median(each[way][part] for each in found) for part in (0, 1))
        print(f"{asked.name}, {way}: {wall:.2f} s, {cpu:.2f} CPU s")


if __name__ == "__main__":
    main()
