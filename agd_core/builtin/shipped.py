"""What ships beside the code, in one table. A further one is one more row, and its folder beside this file."""

from dataclasses import dataclass
from pathlib import Path

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable

BUILTIN_FOLDER = Path(__file__).resolve().parent
MODEL, FINE_TUNED, LORA = "model", "fine-tuned model", "LoRA"
CONTROLNET, IP_ADAPTER, EXTRACTOR = "ControlNet", "IP-Adapter", "extractor"
STOCK = "-stock"
"""Ends the name of a folder that holds a fine-tuned model together with its base, as `agd pretrain` leaves it."""


@dataclass(frozen=True)
class Shipped:
    """One row of the table."""

    name: str
    """As in builtin:NAME and in `agd pretrain NAME`; its folder has the same name."""
    kind: str
    """A model is a whole stock folder; a fine-tuned one is what differs from its base."""
    base: str = ""
    """Of a relative: the model that it belongs to."""
    recipe: str = ""
    """What `agd pretrain` must be told to make it as it ships; "": its name alone."""

    @property
    def remedy(self) -> str:
        """The command that makes it, and what it leaves, in words."""
        command = f"`agd pretrain {self.recipe or self.name} --output DIR`"
        if self.kind not in (MODEL, FINE_TUNED):
            return f"{command} makes DIR/{self.name}"
        folder = self.name + (STOCK if self.kind == FINE_TUNED else "")
        return f"{command} makes it: then set base_model.source=DIR/{folder}"


SHIPPED = (
    Shipped("fashion-dit", MODEL),
    Shipped("fashion-classifier", EXTRACTOR, recipe="fashion-dit"),
    Shipped("emoji-sd", MODEL, recipe="emoji-sd --size gpu"),
    Shipped("emoji-sd-style", FINE_TUNED, "emoji-sd", "emoji-sd-style --size gpu"),
    Shipped("emoji-sd-food", FINE_TUNED, "emoji-sd", "emoji-sd-food --size gpu"),
    Shipped("emoji-sd-lora", LORA, "emoji-sd", "emoji-sd-lora --size gpu"),
    Shipped("emoji-sd-controlnet", CONTROLNET, "emoji-sd", "emoji-sd-controlnet --size gpu"),
    Shipped("emoji-sd-ip-adapter", IP_ADAPTER, "emoji-sd", "emoji-sd-ip-adapter --size gpu"),
    Shipped("emoji-judge", EXTRACTOR),
)


def names(*kinds: str) -> list[str]:
    """The names of what ships of some kinds; none given: all names."""
    return [row.name for row in SHIPPED if not kinds or row.kind in kinds]


def shipped(name: str) -> Shipped:
    """The row of a name.

    Raises:
        InputError: nothing ships under it.
    """
    if found := next((row for row in SHIPPED if row.name == name), None):
        return found
    raise InputError(f"nothing ships under the name {printable(name)!r}; known: {', '.join(names())}")


def shipped_folder(name: str) -> Path:
    """The folder that ships under a name.

    Raises:
        InputError: there is no such name, or its folder is not there.
    """
    row = shipped(name)
    folder = BUILTIN_FOLDER / row.name
    if not folder.is_dir():
        raise InputError(f"builtin:{row.name} is not in this installation; {row.remedy}")
    return folder
