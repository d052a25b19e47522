"""Adapters as files: the weights, what they belong to, and a sketch of the base network they were trained on."""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic import BaseModel as PydanticModel
from torch import nn

from agd_core.basics.atomic import write_json
from agd_core.basics.checkpoint import save_tensors
from agd_core.basics.checksums import require_intact
from agd_core.basics.config_problems import first_problem
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable, read_json
from agd_core.methods import AnyMethodConfig, MethodConfig, Trained
from agd_core.methods.adapter_weights import MOST_BYTES, read_weights
from agd_core.methods.base_sketch import save_sketch, sketch_of
from agd_core.models.backbones import Backbone
from agd_core.models.denoiser import Denoiser
from agd_core.models.model import BaseModel

WEIGHTS, CONFIG, SKETCH = "adapter.safetensors", "adapter.json", "base_sketch.safetensors"
FILES = (WEIGHTS, CONFIG, SKETCH)
"""Everything that an adapter's folder must hold."""
FORMAT_VERSION = 3
_MOST_CARD_BYTES = 1 << 20
_MOST_LETTERS = 4096
_LARGEST_SCALE = 1e6
_Name = Annotated[str, Field(max_length=_MOST_LETTERS)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Scale = Annotated[float, Field(ge=-_LARGEST_SCALE, le=_LARGEST_SCALE, allow_inf_nan=False)]


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"it ends at {ends[1]:g}, below its start {ends[0]:g}")
    return ends


def _rule(identity: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(identity.get("kind"), str):
        raise ValueError("it names no kind of guidance")
    rescale, negative = identity.get("rescale", 0.0), identity.get("negative_prompt", "")
    if not isinstance(rescale, float) or not 0 <= rescale <= 1:
        raise ValueError("its rescale is no share")
    if not isinstance(negative, str) or len(negative) > _MOST_LETTERS:
        raise ValueError("its negative_prompt is no prompt")
    return identity


@dataclass(frozen=True)
class AdapterCard:
    """What adapter.json says beside the method's configuration."""

    base_source: _Name
    base_fingerprint: _Digest
    guidance: Annotated[Mapping[str, Any], AfterValidator(_rule)]
    """What it has learnt, see `Guidance.teacher_identity`."""
    guidance_range: Annotated[tuple[_Scale, _Scale], AfterValidator(_ascending)]
    training_digest: _Digest
    parameters: Annotated[int, Field(ge=0, lt=1 << 50)]
    """Trainable parameters."""
    prediction_type: _Name
    """What the base network predicts: "epsilon", "v_prediction" or "flow"."""
    backbone: _Name
    """The base network's class in diffusers."""

    @classmethod
    def of(
        cls,
        base_model: BaseModel,
        trained: Trained,
        base_source: str,
        guidance: Mapping[str, Any],
        guidance_range: tuple[float, float],
        training_digest: str,
    ) -> "AdapterCard":
        """The card of what was trained on this base model."""
        return cls(
            base_source,
            base_model.fingerprint,
            guidance,
            guidance_range,
            training_digest,
            trained.parameter_count(),
            base_model.prediction_type,
            base_model.backbone.class_name,
        )


class _Stored(PydanticModel):
    """What adapter.json says beside its card; anything else is not read."""

    format_version: int
    method: AnyMethodConfig


def save_adapter(trained: Trained, card: AdapterCard, network: nn.Module, folder: Path) -> None:
    """Write the three files; equal weights of equal networks give equal bytes.

    Args:
        network: the plain network that it was trained on; it is sketched.
    """
    save_tensors(trained.state_dict(), folder / WEIGHTS, "agd-adapter")
    save_sketch(sketch_of(network), folder / SKETCH)
    said = asdict(card) | {"guidance_range": list(card.guidance_range)}
    write_json({"format_version": FORMAT_VERSION, "method": trained.config.identity(), **said}, folder / CONFIG)


def read_card(folder: Path) -> tuple[MethodConfig, AdapterCard]:
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
        method = _Stored.model_validate_json(json.dumps(raw), strict=True).method
        return method, TypeAdapter(AdapterCard).validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        raise _no_adapter(folder, first_problem(error, _Stored)) from error


def _no_adapter(folder: Path, reason: str) -> InputError:
    return InputError(f"{printable(folder)} holds no readable adapter ({CONFIG}): {printable(reason)}")


def read_adapter(folder: Path, config: MethodConfig, backbone: Backbone) -> Trained:
    """What was trained, for a network of this shape; frozen.

    Raises:
        InputError: the weights are missing or damaged, not those that were published, do not fit the network, or are
            no weights.
    """
    path = folder / WEIGHTS
    require_intact(folder, (WEIGHTS,), MOST_BYTES)
    with torch.device("meta"):  # the settings may ask for any size: no memory before the file is known to have it
        trained = config.build(backbone)
    weights = read_weights(path, {name: tuple(value.shape) for name, value in trained.state_dict().items()})
    trained.to_empty(device="cpu").load_state_dict(weights)
    return trained.requires_grad_(False).eval()


def open_adapter(base_model: BaseModel, folder: str | Path) -> Trained:
    """What was trained on this base model, on its device.

    Args:
        base_model: the model it was trained on.
        folder: what `save_adapter` wrote.

    Raises:
        InputError: no adapter there, or one that was trained on another base model.
    """
    folder = Path(folder)
    config, card = read_card(folder)
    if card.base_fingerprint != (found := base_model.fingerprint):
        raise InputError(
            f"adapter {printable(folder)} was trained on base {printable(card.base_source)} "
            f"({card.base_fingerprint[:12]}), this base model is another one ({found[:12]})"
        )
    return read_adapter(folder, config, base_model.backbone).to(base_model.device)


def load_student(base_model: BaseModel, folder: str | Path) -> AbstractContextManager[Denoiser]:
    """A context that yields a student of this base model.

    Several may be open at a time; asked by itself, the base model stays what it is. Arguments and errors as in
    `open_adapter`.
    """
    return open_adapter(base_model, folder).installed(base_model)
