"""Small real adapters that are registered, and what is done to them."""

from pathlib import Path

import torch

from agd_core.basics.checkpoint import load_tensors
from agd_core.basics.checksums import LISTS
from agd_core.basics.seeding import generator
from agd_core.guidance import ClassifierFreeGuidance
from agd_core.methods import ModulatedMlpConfig
from agd_core.methods.adapter_files import WEIGHTS, AdapterCard, read_card, save_adapter
from flows.presets import load_config
from flows.registry import Entry, register
from flows.run import Run
from flows.stages.collect import collect
from flows.stages.distill import train_all
from flows.workplace import Workplace

RULE = ClassifierFreeGuidance().identity()
TRAINED = (
    "collect.trajectories=40",
    "collect.steps=10",
    "collect.kept_steps=5",
    "collect.shard_trajectories=20",
    "train.steps=60",
    "train.batch_size=64",
)
QUICK = ("sample.images=60", "sample.steps=5", "evaluate.distance_subsets=20")
"""Overrides that make a night a matter of a second."""


def train_small(teacher, folder: Path) -> Path:
    """The folder of an adapter that is worth something."""
    config = load_config("fashion-dit", TRAINED)
    config = config.model_copy(update={"methods": config.methods[:1]})
    place = Workplace(folder)
    ((_, adapter),) = train_all(Run(config, place, teacher), collect(Run(config, place, teacher)))
    return adapter.path


def save_untrained(teacher, folder: Path, **learnt: str) -> Path:
    """An adapter that loads and does nothing: its folder."""
    adapter = ModulatedMlpConfig(hidden_width=8, bottleneck_width=4).build(teacher.backbone)
    card = AdapterCard.of(teacher, adapter, "builtin:fashion-dit", RULE | learnt, (1.0, 5.0), "d" * 64)
    save_adapter(adapter, card, teacher.network, folder)
    return folder


def add(adapter: Path, output: Path, overrides=QUICK, name="mine") -> Entry:
    """Register it."""
    return register(adapter, name, "fashion-dit", overrides, Workplace(output))


def change_weights(folder: Path, teacher, change) -> None:
    """Replace every weight by `change(name, weight)` and save the adapter as ever, without checksums."""
    for name in LISTS:
        (folder / name).unlink(missing_ok=True)
    config, card = read_card(folder)
    adapter = config.build(teacher.backbone)
    adapter.load_state_dict({name: change(name, old) for name, old in load_tensors(folder / WEIGHTS)[0].items()})
    save_adapter(adapter, card, teacher.network, folder)


def with_noise(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Noise of twice the weight's own standard deviation."""
    return weight + 2 * weight.std() * torch.randn(weight.shape, generator=generator(0, name))
