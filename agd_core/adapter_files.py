"""Adapters as files: the weights, what they belong to, and a sketch of the base network they were trained on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field, JsonValue, ValidationError
from pydantic import BaseModel as PydanticModel
from torch import nn

from agd_core.adapter_weights import MOST_BYTES, read_weights
from agd_core.adapters import Adapter, AdapterConfig, AnyAdapterConfig
from agd_core.atomic import write_json
from agd_core.backbones import Backbone
from agd_core.base_models.base import BaseModel
from agd_core.base_sketch import save_sketch, sketch_of
from agd_core.checkpoint import save_tensors
from agd_core.checksums import require_intact
from agd_core.config_problems import first_problem
from agd_core.errors import InputError
from agd_core.safe_files import printable, read_json
from agd_core.student import Student

WEIGHTS, CONFIG, SKETCH = "adapter.safetensors", "adapter.json", "base_sketch.safetensors"
FILES = (WEIGHTS, CONFIG, SKETCH)
"""Everything that an adapter's folder must hold."""
FORMAT_VERSION = 3
_MOST_CARD_BYTES = 1 << 20
_MOST_LETTERS = 4096
_LARGEST_SCALE = 1e6
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Scale = Annotated[float, Field(ge=-_LARGEST_SCALE, le=_LARGEST_SCALE, allow_inf_nan=False)]


@dataclass(frozen=True)
class AdapterCard:
    """What adapter.json says beside the adapter's own configuration."""

    base_source: str
    base_fingerprint: str
    guidance: Mapping[str, Any]
    """The guidance rule that it has learnt, see `Config.identity`."""
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
        guidance: Mapping[str, Any],
        guidance_range: tuple[float, float],
        training_digest: str,
    ) -> "AdapterCard":
        """The card of an adapter that was trained on this base model."""
        return cls(
            base_source,
            base_model.fingerprint,
            guidance,
            guidance_range,
            training_digest,
            adapter.parameter_count(),
            base_model.prediction_type,
            base_model.backbone.class_name,
        )


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"it ends at {ends[1]:g}, below its start {ends[0]:g}")
    return ends


def _rule(identity: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if not isinstance(identity.get("kind"), str):
        raise ValueError("it names no kind of guidance")
    return identity


class _Stored(PydanticModel):
    """adapter.json; what it holds beside this is not read."""

    format_version: int
    adapter: AnyAdapterConfig
    base_source: str = Field(max_length=_MOST_LETTERS)
    base_fingerprint: _Digest
    guidance: Annotated[dict[str, JsonValue], AfterValidator(_rule)]
    guidance_range: Annotated[tuple[_Scale, _Scale], AfterValidator(_ascending)]
    training_digest: _Digest
    parameters: int = Field(ge=0, lt=1 << 50)
    prediction_type: str = Field(max_length=_MOST_LETTERS)
    backbone: str = Field(max_length=_MOST_LETTERS)

    def card(self) -> AdapterCard:
        """Everything but the adapter's configuration."""
        return AdapterCard(**{field.name: getattr(self, field.name) for field in fields(AdapterCard)})


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
        InputError: the folder holds no adapter, one of another format, or another adapter.json than was published.
    """
    try:
        require_intact(folder, (CONFIG,), _MOST_CARD_BYTES)
        raw = read_json(folder / CONFIG, _MOST_CARD_BYTES)
    except InputError as error:
        raise _no_adapter(folder, str(error)) from error
    found = raw.get("format_version") if isinstance(raw, dict) else None
    if type(found) is int and found != FORMAT_VERSION:
        raise InputError(
            f"{printable(folder)} holds an adapter of format {found}, we read format {FORMAT_VERSION}: train it again"
        )
    try:
        stored = _Stored.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise _no_adapter(folder, first_problem(error, _Stored)) from error
    return stored.adapter, stored.card()


def _no_adapter(folder: Path, reason: str) -> InputError:
    return InputError(f"{printable(folder)} holds no readable adapter ({CONFIG}): {printable(reason)}")


def read_adapter(folder: Path, config: AdapterConfig, backbone: Backbone) -> Adapter:
    """The saved adapter, for a network of this shape; frozen.

    Raises:
        InputError: the weights are missing or damaged, not those that were published, do not fit the network, or are
            no weights.
    """
    path = folder / WEIGHTS
    require_intact(folder, (WEIGHTS,), MOST_BYTES)
    with torch.device("meta"):  # the settings may ask for any size: no memory before the file is known to have it
        adapter = Adapter(config, backbone.sites, backbone.embedding_widths)
    weights = read_weights(path, {name: tuple(value.shape) for name, value in adapter.state_dict().items()})
    adapter.to_empty(device="cpu").load_state_dict(weights)
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
            f"adapter {printable(folder)} was trained on base {printable(card.base_source)} "
            f"({card.base_fingerprint[:12]}), "
            f"this base model is another one ({found[:12]})"
        )
    student.add(name or folder.resolve().name, read_adapter(folder, config, base.backbone))
