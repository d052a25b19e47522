"""Adapters as files: adapter.safetensors with the weights, adapter.json with what they belong to."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from agd_core.adapters import Adapter, AdapterConfig, AnyAdapterConfig
from agd_core.base_models.base import BaseModel
from agd_core.checkpoint import load_tensors, save_tensors, write_json
from agd_core.errors import InputError, first_line
from agd_core.student import Student

WEIGHTS, CONFIG = "adapter.safetensors", "adapter.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class AdapterCard:
    """What adapter.json says beside the adapter's own configuration."""

    base_source: str
    base_fingerprint: str
    guidance_range: tuple[float, float]
    training_digest: str
    parameters: int
    """Trainable parameters."""


def save_adapter(adapter: Adapter, card: AdapterCard, folder: Path) -> None:
    """Write the two files; equal adapters give equal bytes."""
    save_tensors(adapter.state_dict(), folder / WEIGHTS, "agd-adapter")
    config = {
        "format_version": FORMAT_VERSION,
        "adapter": adapter.config.identity(),
        "base_source": card.base_source,
        "base_fingerprint": card.base_fingerprint,
        "guidance_range": list(card.guidance_range),
        "training_digest": card.training_digest,
        "parameters": card.parameters,
    }
    write_json(config, folder / CONFIG)


def read_card(folder: Path) -> tuple[AdapterConfig, AdapterCard]:
    """Read adapter.json.

    Raises:
        InputError: the folder holds no adapter, or one of another format.
    """
    try:
        raw: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config: AdapterConfig = TypeAdapter(AnyAdapterConfig).validate_python(raw["adapter"])
        low, high = raw["guidance_range"]
        card = AdapterCard(
            raw["base_source"], raw["base_fingerprint"], (low, high), raw["training_digest"], raw["parameters"]
        )
    except (OSError, ValueError, KeyError, ValidationError) as error:
        raise InputError(f"{folder} holds no readable adapter ({CONFIG}): {first_line(error)}") from error
    return config, card


def load_adapter(base_model: BaseModel, folder: str | Path, name: str | None = None) -> Student:
    """A student of this base model with the saved adapter active.

    Args:
        base_model: the model the adapter was trained on.
        folder: holds adapter.safetensors and adapter.json.
        name: how the adapter is called in the student; the folder's name by default.

    Raises:
        InputError: no adapter there, or one that was trained on another base model.
    """
    student = Student(base_model)
    add_adapter(student, folder, name)
    return student


def add_adapter(student: Student, folder: str | Path, name: str | None = None) -> None:
    """Load a further adapter into a student and make it active; arguments and errors as in `load_adapter`."""
    folder = Path(folder)
    config, card = read_card(folder)
    base = student.base_model
    if card.base_fingerprint != (found := base.fingerprint):
        raise InputError(
            f"adapter {folder} was trained on base {card.base_source} ({card.base_fingerprint[:12]}), "
            f"this base model is another one ({found[:12]})"
        )
    adapter = Adapter(config, base.adapter_sites(), base.embedding_widths)
    try:
        adapter.load_state_dict(load_tensors(folder / WEIGHTS)[0])
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS} does not hold this adapter's weights: {first_line(error)}") from error
    student.add(name or folder.resolve().name, adapter.requires_grad_(False).eval())
