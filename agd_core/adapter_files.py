"""Adapters as files: the weights, what they belong to, and a sketch of the base network they were trained on."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import nn

from agd_core.adapters import Adapter, AdapterConfig, AnyAdapterConfig
from agd_core.atomic import write_json
from agd_core.backbones import Backbone
from agd_core.base_models.base import BaseModel
from agd_core.base_sketch import save_sketch, sketch_of
from agd_core.checkpoint import load_tensors, save_tensors
from agd_core.config_problems import first_problem
from agd_core.errors import InputError, first_line
from agd_core.student import Student

WEIGHTS, CONFIG, SKETCH = "adapter.safetensors", "adapter.json", "base_sketch.safetensors"
FILES = (WEIGHTS, CONFIG, SKETCH)
"""Everything that an adapter's folder must hold."""
FORMAT_VERSION = 2


@dataclass(frozen=True)
class AdapterCard:
    """What adapter.json says beside the adapter's own configuration."""

    base_source: str
    base_fingerprint: str
    guidance_range: tuple[float, float]
    training_digest: str
    parameters: int
    """Trainable parameters."""
    prediction_type: str
    """What the base network predicts: "epsilon", "v_prediction" or "flow"."""
    backbone: str
    """The base network's class in diffusers."""

    @classmethod
    def of(
        cls,
        base_model: BaseModel,
        adapter: Adapter,
        base_source: str,
        guidance_range: tuple[float, float],
        training_digest: str,
    ) -> "AdapterCard":
        """The card of an adapter that was trained on this base model."""
        return cls(
            base_source,
            base_model.fingerprint,
            guidance_range,
            training_digest,
            adapter.parameter_count(),
            base_model.prediction_type,
            base_model.backbone.class_name,
        )


def save_adapter(adapter: Adapter, card: AdapterCard, network: nn.Module, folder: Path) -> None:
    """Write the three files; equal adapters of equal networks give equal bytes.

    Args:
        network: the plain network that the adapter was trained on; it is sketched.
    """
    save_tensors(adapter.state_dict(), folder / WEIGHTS, "agd-adapter")
    save_sketch(sketch_of(network), folder / SKETCH)
    said = asdict(card) | {"guidance_range": list(card.guidance_range)}
    write_json({"format_version": FORMAT_VERSION, "adapter": adapter.config.identity(), **said}, folder / CONFIG)


def read_card(folder: Path) -> tuple[AdapterConfig, AdapterCard]:
    """Read adapter.json.

    Raises:
        InputError: the folder holds no adapter, or one of another format.
    """
    try:
        raw: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if (found := raw["format_version"]) != FORMAT_VERSION:
            raise InputError(
                f"{folder} holds an adapter of format {found}, we read format {FORMAT_VERSION}: train it again"
            )
        config: AdapterConfig = TypeAdapter(AnyAdapterConfig).validate_python(raw.pop("adapter"))
        low, high = raw.pop("guidance_range")
        said = {name: raw[name] for name in (field.name for field in fields(AdapterCard)) if name in raw}
        card = AdapterCard(**said, guidance_range=(low, high))
    except InputError:
        raise
    except ValidationError as error:
        problem = first_problem(error, AnyAdapterConfig)
        raise InputError(f"{folder} holds no readable adapter ({CONFIG}): adapter.{problem}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder} holds no readable adapter ({CONFIG}): {first_line(error)}") from error
    return config, card


def read_adapter(folder: Path, config: AdapterConfig, backbone: Backbone) -> Adapter:
    """The saved adapter, for a network of this shape; frozen.

    Raises:
        InputError: the weights are missing or damaged, or do not fit the network.
    """
    adapter = Adapter(config, backbone.sites, backbone.embedding_widths)
    try:
        adapter.load_state_dict(load_tensors(folder / WEIGHTS)[0])
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS} does not hold this adapter's weights: {first_line(error)}") from error
    return adapter.requires_grad_(False).eval()


def load_student(base_model: BaseModel, folder: str | Path, name: str | None = None) -> Student:
    """A student of this base model with the saved adapter active.

    Args:
        base_model: the model the adapter was trained on.
        folder: what `save_adapter` wrote.
        name: how the adapter is called in the student; the folder's name by default.

    Raises:
        InputError: no adapter there, or one that was trained on another base model.
    """
    student = Student(base_model)
    add_adapter(student, folder, name)
    return student


def add_adapter(student: Student, folder: str | Path, name: str | None = None) -> None:
    """Load a further adapter into a student and make it active; arguments and errors as in `load_student`."""
    folder = Path(folder)
    config, card = read_card(folder)
    base = student.base_model
    if card.base_fingerprint != (found := base.fingerprint):
        raise InputError(
            f"adapter {folder} was trained on base {card.base_source} ({card.base_fingerprint[:12]}), "
            f"this base model is another one ({found[:12]})"
        )
    student.add(name or folder.resolve().name, read_adapter(folder, config, base.backbone))
