"""Prompts of the emoji world in lists: some to collect on, others to evaluate on, and those that nothing was shown of.

The lists that ship in `agd_core/builtin/captions` are these.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np

from agd_core.basics.atomic import write_bytes
from agd_core.basics.permutation import Permutation
from agd_core.basics.seeding import derive_seed
from agd_core.pretraining.emoji.captions import plain_caption
from agd_core.pretraining.emoji.images import HELD_OUT, TRAIN, EmojiImages

COLLECT, EVALUATE, NEVER_SHOWN = "emoji-collect", "emoji-evaluate", "emoji-held-out"
COLLECTED, EVALUATED = 2000, 1000
"""Prompts of the first two lists."""
_SAID = {
    COLLECT: "well-known names in styles that the base model learnt them in, to collect trajectories on",
    EVALUATE: "others that it learnt, and all of emoji-held-out, to evaluate on",
    NEVER_SHOWN: "well-known names in styles that the base model never saw them in",
}


def prompt_lists(images: EmojiImages, collected: int = COLLECTED, evaluated: int = EVALUATED) -> dict[str, list[str]]:
    """The prompts of every list by its name, in mixed order; the same pictures give the same lists.

    Args:
        images: with what each is for; the well-known ones of the base styles are asked for.
        collected: prompts to collect on, at most.
        evaluated: prompts to evaluate on, at most, the held-out ones among them.
    """
    learnt, held_out = (_captions(images.of(split, common_only=True), split) for split in (TRAIN, HELD_OUT))
    others = learnt[collected : collected + max(0, evaluated - len(held_out))]
    return {COLLECT: learnt[:collected], EVALUATE: _mixed([*held_out, *others], EVALUATE), NEVER_SHOWN: held_out}


def write_prompt_lists(images: EmojiImages, folder: Path) -> None:
    """Write the lists as text files, one prompt a line.

    Raises:
        OSError: no space, no permission, a disk that fails.
    """
    for name, prompts in prompt_lists(images).items():
        said = f"# Prompts of the emoji world (docs/emoji.md): {_SAID[name]}."
        write_bytes("\n".join([said, *prompts, ""]).encode(), folder / f"{name}.txt")


def _captions(images: EmojiImages, split: str) -> list[str]:
    pairs = zip(images.names, images.styles, strict=True)
    return _mixed([plain_caption(name, style) for name, style in pairs], split)


def _mixed(captions: Collection[str], what: str) -> list[str]:
    """Each once, in an order that is the same for the same captions."""
    if not (ordered := sorted(set(captions))):
        return []
    order = Permutation(len(ordered), derive_seed(0, "prompts", what)).forward(np.arange(len(ordered)))
    return [ordered[number] for number in order]
