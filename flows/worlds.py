"""The built-in worlds, which `agd pretrain` trains again. Every world is a flow and a deployment, too.

A further world is one more row here, its file below `flows/stages`, and its name in prefect.yaml.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agd_core.basics.errors import InputError

if TYPE_CHECKING:
    from flows.workplace import Workplace


@dataclass(frozen=True)
class World:
    """One row of the table."""

    name: str
    """As in builtin:NAME."""
    flow: str
    """Its flow and its deployment."""
    sizes: tuple[str, ...]
    """Its recipes, named after the machine that they are for; the first is the usual one."""
    train: Callable[[Path | None, Workplace, str], dict[str, Any]]
    """Trains it from a folder of data, or where None from where the data usually is; the size comes last."""

    def checked_size(self, size: str | None) -> str:
        """A size that this world has, the usual one where none is asked for.

        Raises:
            InputError: it has no such size.
        """
        if size and size not in self.sizes:
            raise InputError(f"size {size!r} of {self.name} is unknown; allowed: {', '.join(self.sizes)}")
        return size or self.sizes[0]


def world_of(name: str) -> World:
    """The world of this name.

    Raises:
        InputError: there is none.
    """
    if found := next((world for world in WORLDS if world.name == name), None):
        return found
    raise InputError(f"world {name!r} is unknown; allowed: {', '.join(world.name for world in WORLDS)}")


def _fashion(data: Path | None, place: Workplace, size: str) -> dict[str, Any]:
    from flows.stages.pretrain_fashion import pretrain_fashion

    return pretrain_fashion(data, place)


def _emoji(data: Path | None, place: Workplace, size: str) -> dict[str, Any]:
    from flows.stages.pretrain_emoji import pretrain_emoji

    return pretrain_emoji(data, place, size)


def _judge(data: Path | None, place: Workplace, size: str) -> dict[str, Any]:
    from flows.stages.pretrain_emoji_judge import pretrain_emoji_judge

    return pretrain_emoji_judge(data, place)


WORLDS = (
    World("fashion-dit", "pretrain-teacher", ("cpu",), _fashion),
    World("emoji-sd", "pretrain-emoji-sd", ("cpu", "gpu"), _emoji),
    World("emoji-judge", "pretrain-emoji-judge", ("cpu",), _judge),
)
