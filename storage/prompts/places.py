"""Which files of prompts a person means."""

from pathlib import Path

from storage.images.places import named_files
from storage.images.problems import ImageProblem
from storage.prompts.problems import PromptProblem


def prompt_files(place: str, suffix: str) -> list[Path]:
    """`storage.images.places.named_files`, with a message about prompts.

    Raises:
        PromptProblem: there is no such file.
    """
    try:
        return named_files(place, suffix)
    except ImageProblem as problem:
        raise PromptProblem(f"prompts {str(problem).removeprefix('images ')}") from problem
