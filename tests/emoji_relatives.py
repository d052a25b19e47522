"""What tests of the emoji world's relatives share: pictures as conditions, a training that is interrupted, files."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from agd_core.basics.progress import Stopped
from flows.workplace import Workplace
from tests.emoji_pictures import emoji_pictures


def picture(row: int) -> Image.Image:
    """One of the squares."""
    return Image.fromarray(emoji_pictures().pixels[row].numpy())


def interrupted(train: Callable[[Workplace], object], output: Path) -> None:
    """Stop a training after one, two and three steps more, then let it end."""
    for polls in ([True], [False, True], [False, False, True]):
        answers = iter(polls)
        with pytest.raises(Stopped):
            train(Workplace(output, should_stop=lambda answers=answers: next(answers, False)))
    train(Workplace(output))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
