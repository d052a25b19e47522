"""Kill a training of the text-to-image world at random moments and compare its folder with that of an unbroken run.

python benchmarks/kill_pretrain.py [--kills 10] [--steps 200] [--seed 0] [--folder DIR] [--json]

The recipe is that of `agd pretrain emoji-sd` with narrow networks, on eight pictures, with a checkpoint at every step.
A second unbroken run must leave the same bytes, too. Exit code 1 if anything is not as it should be.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agd_core.basics.digest import file_digest
from agd_core.pretraining.emoji.recipe import EmojiRecipe
from benchmarks.killing import KILLED, command_line, kill, show, start, wait
from flows.stages.pretrain_emoji import train_emoji
from flows.workplace import Workplace
from tests.emoji_pictures import emoji_pictures, tiny_recipe

CHECKPOINT_SECONDS = 0.1


def recipe_of(steps: int) -> EmojiRecipe:
    """So many steps of each training, with a checkpoint every tenth of a second."""
    tiny, often = tiny_recipe(steps), {"checkpoint_seconds": CHECKPOINT_SECONDS}
    parts = {name: getattr(tiny, name).model_copy(update=often) for name in ("vae", "denoiser")}
    return tiny.model_copy(update=parts)


def train(folder: Path, steps: int) -> None:
    """What `agd pretrain emoji-sd` does once the pictures are drawn."""
    train_emoji(emoji_pictures(), "squares", Workplace(folder), recipe_of(steps))


def bytes_of(folder: Path) -> dict[str, str]:
    """Digests of all files of the finished model."""
    files = sorted(path for path in (folder / "emoji-sd").rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def unlike(left: dict[str, str], right: dict[str, str]) -> list[str]:
    """Files that only one of two models has, or whose bytes differ."""
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))


def unbroken(folder: Path, steps: int) -> dict[str, str]:
    """The bytes of a run that nobody kills.

    Raises:
        RuntimeError: it failed.
    """
    if wait(start(partial(train, folder, steps))):
        raise RuntimeError("an unbroken training failed")
    return bytes_of(folder)


def killed(folder: Path, steps: int, kills: int, next_life: Any) -> Counter[str]:
    """Start a training until it is finished, and kill it so many times on the way.

    Args:
        folder: where it works.
        steps: of each training.
        kills: how many.
        next_life: gives the seconds until a kill.
    """
    counts: Counter[str] = Counter()
    status = KILLED
    while status:
        process = start(partial(train, folder, steps))
        if counts["kills"] < kills:
            time.sleep(next_life())
            kill(process)
        status = wait(process)
        counts["kills"] += status == KILLED
        counts["failed processes"] += status not in (0, KILLED)
        if status not in (0, KILLED):
            break
    counts["partial files left"] += len(list(folder.rglob("*.partial")))
    return counts


def kill_pretrainings(kills: int, steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill until so many kills are reached; returns the measured numbers."""
    torch.set_num_threads(1)
    begin = time.monotonic()
    expected = unbroken(folder / "unbroken", steps)
    life, rng, counts = time.monotonic() - begin, random.Random(seed), Counter[str]()  # noqa: S311
    counts["second runs unlike the first"] += bool(unlike(unbroken(folder / "again", steps), expected))
    files: list[str] = []
    while counts["kills"] < kills and not counts["failed processes"]:
        place = folder / str(counts["rounds"])
        counts.update(killed(place, steps, kills - counts["kills"], lambda: rng.uniform(0, life / 3)))
        counts["rounds"] += 1
        found = unlike(bytes_of(place), expected)
        counts["models unlike the unbroken run's"] += bool(found)
        files += found
    return {"unbroken training, seconds": round(life, 2), "steps": steps, **counts, "files unlike": files}


def main() -> int:
    """Exit code 0 if everything is as it should be."""
    parser = command_line(__doc__, kills=10)
    parser.add_argument("--steps", type=int, default=200, help="of each of the two trainings")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = kill_pretrainings(arguments.kills, arguments.steps, arguments.seed, Path(folder))
    show(result, arguments.json)
    unwanted = ("failed processes", "models unlike the unbroken run's", "second runs unlike the first")
    return int(any(result.get(name) for name in unwanted))


if __name__ == "__main__":
    sys.exit(main())
