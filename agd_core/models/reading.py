"""What is read of a model's folder: its settings, its networks, and the identity of their weights."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from agd_core.basics import safe_files
from agd_core.basics.errors import InputError, first_line
from agd_core.basics.safe_files import open_tensors, printable
from agd_core.models.backbones import BACKBONES, Backbone
from agd_core.models.folder import CONFIG, MODEL_INDEX, MOST_SETTINGS_BYTES, require_possible_size

_FINGERPRINT_VALUES = 4096


def pipeline_class(folder: Path) -> str:
    """The pipeline class that a diffusers folder declares, e.g. "DiTPipeline".

    Raises:
        InputError: the folder has no readable model_index.json.
    """
    try:
        return str(read_settings(folder / MODEL_INDEX)["_class_name"])
    except KeyError as error:
        raise InputError(f"{folder / MODEL_INDEX} names no pipeline class") from error


def network_class(folder: Path, source: str) -> type[Backbone]:
    """The class of networks that a diffusers folder holds a model of.

    Its pipeline tells: folders of earlier diffusers have other names for the network's class.

    Raises:
        InputError: the pipeline is not known.
    """
    pipeline = pipeline_class(folder)
    for kind in BACKBONES.values():
        if pipeline in kind.pipelines:
            return kind
    known = ", ".join(name for kind in BACKBONES.values() for name in kind.pipelines)
    raise InputError(f"base model {source} is a {printable(pipeline)}; known are {known}")


def read_settings(path: Path, form: str = "diffusers") -> dict[str, Any]:
    """A JSON object of a folder in diffusers (or another) format.

    Raises:
        InputError: missing or unreadable.
    """
    if not path.exists():
        raise InputError(f"not a complete {form} folder: {printable(path)} is missing")
    content = safe_files.read_json(path, MOST_SETTINGS_BYTES)
    if not isinstance(content, dict):
        raise InputError(f"not a complete {form} folder: {printable(path)} holds no JSON object")
    return content


def load_component(
    kind: Any, folder: Path, dtype: torch.dtype, device: torch.device, variant: str | None = None
) -> Any:
    """One frozen network of a folder in diffusers or transformers format, from safetensors only.

    Args:
        kind: its class.
        folder: where its settings and weights are.
        dtype: of its parameters.
        device: where it goes.
        variant: see `weights_variant`.

    Raises:
        InputError: missing or unreadable.
    """
    if (folder / CONFIG).exists():
        require_possible_size(kind, folder)
    try:
        module, loading = kind.from_pretrained(
            folder,
            dtype=dtype,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # a damaged folder may raise anything
        reason = printable(first_line(error))
        raise InputError(f"cannot load {kind.__name__} from {printable(folder)}: {reason}") from error
    if missing := sorted(loading["missing_keys"]):
        raise InputError(
            f"cannot load {kind.__name__} from {printable(folder)}: {len(missing)} weights missing, e.g. {missing[0]}"
        )
    return module.to(device).requires_grad_(False).eval()


def weights_variant(folder: Path) -> str | None:
    """None, or "fp16" for a component whose weights are there as `NAME.fp16.safetensors` alone."""
    halves = set(folder.glob("*.fp16*.safetensors"))
    return "fp16" if halves and halves == set(folder.glob("*.safetensors")) else None


def stored_fingerprint(folder: Path, stem: str = "diffusion_pytorch_model") -> str:
    """Identity of a component's weights as its safetensors files hold them.

    sha256 over name, shape and up to 4096 evenly spaced values (as float32) of every tensor: fast for billions of
    parameters, and fine-tuning moves nearly all of them.

    Args:
        folder: of the component.
        stem: begins the names of the files: diffusers' own, or "model" as transformers has it.

    Raises:
        InputError: a file is damaged.
    """
    parts = sorted(_tensor_digests(folder, stem))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _tensor_digests(folder: Path, stem: str) -> Iterator[str]:
    """Name, shape and digest of every tensor of the one file, or of all parts where the weights are split."""
    variant = f".{found}" if (found := weights_variant(folder)) else ""
    whole = folder / f"{stem}{variant}.safetensors"
    parts = folder.glob(f"{stem}{variant}-*-of-*.safetensors")
    for path in [whole] if whole.is_file() else sorted(parts):
        with open_tensors(path) as file:
            yield from (_tensor_digest(name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118


def _tensor_digest(name: str, tensor: torch.Tensor) -> str:
    values = tensor.flatten()[:: max(1, tensor.numel() // _FINGERPRINT_VALUES)].float().contiguous()
    return f"{name} {tuple(tensor.shape)} {hashlib.sha256(values.numpy().tobytes()).hexdigest()}\n"
