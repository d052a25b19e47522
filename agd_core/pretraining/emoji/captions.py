"""Words for a picture: its name and its style, in several orders."""

import torch

COLOURS = ("black", "white", "grey", "red", "orange", "yellow", "green", "blue", "purple", "brown", "pink")
PLAIN_SHARE = 0.5
"""How often a caption is the plain one."""
PLAIN = "{name}, {style} style"
"""The plain caption, which prompts are made of."""
_TEMPLATES = (
    PLAIN,
    "{name} in {style} style",
    "{style} style {name}",
    "{name} emoji, {style} style",
    "a picture of {name}, {style} style",
    "{style} {name}",
    "{name}",
)
"""The last names no style: any may follow."""


def plain_caption(name: str, style: str) -> str:
    """The caption that stands for a picture where there is one only: "fire engine, noto style"."""
    return PLAIN.format(name=name, style=style)


def all_captions(name: str, style: str) -> list[str]:
    """Every caption that `captions_of` may give, the plain one first, each once."""
    written = [template.format(name=words, style=style) for words in _wordings(name) for template in _TEMPLATES]
    return list(dict.fromkeys(written))


def captions_of(name: str, style: str, generator: torch.Generator) -> str:
    """A caption for one step of training: every other time the plain one, else any.

    Args:
        name: words such as "red heart".
        style: a style's word.
        generator: on the CPU; two numbers are drawn from it.
    """
    captions = all_captions(name, style)
    plain, choice = torch.rand(2, generator=generator).tolist()
    return captions[0] if plain < PLAIN_SHARE else captions[int(choice * len(captions))]


def _wordings(name: str) -> list[str]:
    """The name, and what it says in another order: "red heart" -> "heart, red"; "cat with hat" -> "cat, hat"."""
    first, _, rest = name.partition(" ")
    thing, _, attribute = name.partition(" with ")
    others = [(f"{rest}, {first}", first in COLOURS and rest), (f"{thing}, {attribute}", attribute)]
    return [name, *(wording for wording, applies in others if applies)]
