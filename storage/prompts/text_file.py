"""Text files with one prompt a line."""

from collections.abc import Iterator
from pathlib import Path

from storage.prompts.places import prompt_files
from storage.prompts.problems import PromptProblem
from storage.prompts.texts import decoded

SUFFIX = ".txt"
_COMMENT = "#"
_MOST_LINE_BYTES = 1 << 20
"""No more is read at once; a longer line is refused."""


def text_prompts(place: str) -> Iterator[tuple[str, str]]:
    """Where it is, for messages, and the text of every line that is no comment; a byte order mark is passed over.

    Args:
        place: a .txt file, a folder of them, or a pattern, see `storage.images.places.named_files`.

    Raises:
        PromptProblem: a file is not there or is not UTF-8.
    """
    for file in prompt_files(place, SUFFIX):
        try:
            yield from _lines(file)
        except OSError as error:
            raise PromptProblem(f"{file} cannot be read: {error.strerror}") from error


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        for row, line in enumerate(iter(lambda: file.readline(_MOST_LINE_BYTES), b""), start=1):
            where = f"{path}, line {row}"
            if len(line) == _MOST_LINE_BYTES and not line.endswith(b"\n"):
                raise PromptProblem(f"{where} is longer than {_MOST_LINE_BYTES >> 20} MB")
            text = decoded(line, where)
            if not text.lstrip().startswith(_COMMENT):
                yield where, text
