"""The built-in worlds, which `agd pretrain` trains again. Every world has a flow and a deployment, too.

A further world is one more row here, its file below `flows/stages`, and its name in prefect.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agd_core.basics.errors import InputError

if TYPE_CHECKING:
    from flows.workplace import Workplace


@dataclass(frozen=True)
class Pretraining:
    """What is asked of a world's training."""

    data: Path | None
    """Folder of its data; None: where it usually is."""
    size: str
    """One of the world's recipes."""
    base: str = ""
    """The base model of a relative, as `base_model.source` names one; "" for what is trained from nothing."""


@dataclass(frozen=True)
class World:
    """One row of the table."""

    name: str
    """As in builtin:NAME."""
    flow: str
    """Its flow and its deployment; relatives of one model share them."""
    sizes: tuple[str, ...]
    """Its recipes, named after the machine that they are for; the first is the usual one."""
    train: Callable[[Pretraining, Workplace], dict[str, Any]]
    base: str = ""
    """What a relative is trained from where no other base is named; "" for what is trained from nothing."""

    def asked(self, data: Path | None = None, size: str | None = None, base: str | None = None) -> Pretraining:
        """A training of this world, with its usual size and base where none is asked for.

        Raises:
            InputError: it has no such size, or is trained from nothing.
        """
        if size and size not in self.sizes:
            raise InputError(f"size {size!r} of {self.name} is unknown; allowed: {', '.join(self.sizes)}")
        if base and not self.base:
            raise InputError(f"{self.name} is trained from nothing: leave the base out")
        return Pretraining(data, size or self.sizes[0], base or self.base)


def world_of(name: str) -> World:
    """The world of this name.

    Raises:
        InputError: there is none.
    """
    if found := next((world for world in WORLDS if world.name == name), None):
        return found
    raise InputError(f"world {name!r} is unknown; allowed: {', '.join(world.name for world in WORLDS)}")


def _fashion(asked: Pretraining, place: Workplace) -> dict[str, Any]:
    from flows.stages.pretrain_fashion import pretrain_fashion

    return pretrain_fashion(asked.data, place)


def _emoji(asked: Pretraining, place: Workplace) -> dict[str, Any]:
    from flows.stages.pretrain_emoji import pretrain_emoji

    return pretrain_emoji(asked.data, place, asked.size)


def _judge(asked: Pretraining, place: Workplace) -> dict[str, Any]:
    from flows.stages.pretrain_emoji_judge import pretrain_emoji_judge

    return pretrain_emoji_judge(asked.data, place)


def _sibling(asked: Pretraining, place: Workplace, name: str) -> dict[str, Any]:
    from agd_core.pretraining.emoji.relative_recipes import SIBLINGS
    from flows.stages.pretrain_emoji_sibling import train_emoji_sibling

    return _trained(train_emoji_sibling, SIBLINGS[name], asked, place)


def _lora(asked: Pretraining, place: Workplace) -> dict[str, Any]:
    from agd_core.pretraining.emoji.relative_recipes import LORAS
    from flows.stages.pretrain_emoji_lora import train_emoji_lora

    return _trained(train_emoji_lora, LORAS, asked, place)


def _controlnet(asked: Pretraining, place: Workplace) -> dict[str, Any]:
    from agd_core.pretraining.emoji.relative_recipes import CONTROLNETS
    from flows.stages.pretrain_emoji_controlnet import train_emoji_controlnet

    return _trained(train_emoji_controlnet, CONTROLNETS, asked, place)


def _ip_adapter(asked: Pretraining, place: Workplace) -> dict[str, Any]:
    from agd_core.pretraining.emoji.relative_recipes import IP_ADAPTERS
    from flows.stages.pretrain_emoji_ip_adapter import train_emoji_ip_adapter

    return _trained(train_emoji_ip_adapter, IP_ADAPTERS, asked, place)


def _trained(train: Any, recipes: Mapping[str, Any], asked: Pretraining, place: Workplace) -> dict[str, Any]:
    from flows.stages.emoji_relative import pretrain_emoji_relative

    return pretrain_emoji_relative(train, recipes[asked.size], asked.data, place, asked.base)


def _relative(name: str, train: Callable[[Pretraining, Workplace], dict[str, Any]]) -> World:
    """A row of a relative of the emoji model; all of them share a flow."""
    return World(name, "pretrain-emoji-relative", ("cpu", "gpu"), train, "builtin:emoji-sd")


WORLDS = (
    World("fashion-dit", "pretrain-teacher", ("cpu",), _fashion),
    World("emoji-sd", "pretrain-emoji-sd", ("cpu", "gpu"), _emoji),
    World("emoji-judge", "pretrain-emoji-judge", ("cpu",), _judge),
    _relative("emoji-sd-style", partial(_sibling, name="emoji-sd-style")),
    _relative("emoji-sd-food", partial(_sibling, name="emoji-sd-food")),
    _relative("emoji-sd-lora", _lora),
    _relative("emoji-sd-controlnet", _controlnet),
    _relative("emoji-sd-ip-adapter", _ip_adapter),
)
