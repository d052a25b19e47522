"""Where a base model's files are: shipped with this package, a local folder, or a hub id."""

import json
from pathlib import Path
from typing import Any

import torch

from agd_core.errors import InputError

MODEL_INDEX = "model_index.json"
_BUILTIN = "builtin:"
BUILTIN_FOLDER = Path(__file__).resolve().parent.parent / "builtin"


def resolve_source(source: str) -> Path:
    """The local folder in diffusers format that `source` names; a hub id is downloaded or taken from the cache.

    Raises:
        InputError: unknown built-in name, no such folder, no model_index.json, or a hub id that cannot be had.
    """
    if source.startswith(_BUILTIN):
        return _builtin_folder(source.removeprefix(_BUILTIN))
    if (folder := Path(source).expanduser()).is_dir():
        return folder
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise InputError(
            f"base model folder {source} does not exist; give a diffusers folder, a hub id (owner/name) or builtin:NAME"
        )
    return _download(source)


def pipeline_class(folder: Path) -> str:
    """The pipeline class that a diffusers folder declares, e.g. "DiTPipeline".

    Raises:
        InputError: the folder has no readable model_index.json.
    """
    try:
        return str(read_json(folder / MODEL_INDEX)["_class_name"])
    except KeyError as error:
        raise InputError(f"{folder / MODEL_INDEX} names no pipeline class") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a diffusers folder.

    Raises:
        InputError: missing or unreadable.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"not a complete diffusers folder: {path} is missing or unreadable") from error
    return content


def load_component(kind: Any, folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """One frozen network of a diffusers folder, from safetensors only.

    Raises:
        InputError: missing or unreadable.
    """
    try:
        module = kind.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"cannot load {kind.__name__} from {folder}: {_first_line(error)}") from error
    return module.to(device).requires_grad_(False).eval()


def _builtin_folder(name: str) -> Path:
    known = sorted(path.name for path in BUILTIN_FOLDER.iterdir() if (path / MODEL_INDEX).is_file())
    if name not in known:
        raise InputError(f"unknown built-in model {name!r}; known: {', '.join(known) or 'none'}")
    return BUILTIN_FOLDER / name


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:
        raise InputError(
            f"base model {hub_id!r} is no local folder and could not be downloaded: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
