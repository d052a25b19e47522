"""How every relative of the emoji model is begun: its base and the drawings are there before anything is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agd_core.models.sources import resolve_source
from agd_core.pretraining.emoji.frozen_base import require_base
from agd_core.pretraining.emoji.images import EmojiImages
from flows.stages.emoji_source import emoji_source, read_emoji
from flows.workplace import Workplace

Train = Callable[[EmojiImages, str, Workplace, Any, Path], dict[str, Any]]
"""(pictures, their identity, workplace, recipe, folder of the base) -> what was made and measured."""


def pretrain_emoji_relative(
    train: Train, recipe: Any, data: Path | None, place: Workplace, base: str
) -> dict[str, Any]:
    """Draw the emoji and train a relative of a base on them.

    Args:
        train: of one kind of relative.
        recipe: as `train` takes it.
        data: folder of the npm packages; None fetches them with npm.
        place: where to work.
        base: whose relative it is, as `base_model.source` names it.

    Raises:
        InputError: the base, the packages, what draws them or a library is missing.
        Stopped: after a checkpoint, when asked to; run again to resume.
    """
    folder = resolve_source(base)
    require_base(folder)
    source = emoji_source(data, place)
    return train(read_emoji(source.path), source.digest, place, recipe, folder)
