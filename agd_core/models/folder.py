"""A folder with a model that anybody may have made, looked at before a library opens its files by itself.

Diffusers, transformers, tokenizers and safetensors open what they find: a named pipe for ever, and whatever file a
settings file names. So every file must be regular, every name inside a file must lead to a file of the folder, nothing
may ask for code, and a network may not be larger than the weights that lie beside its settings.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import confined, open_tensors, printable, read_json, require_regular

CONFIG, MODEL_INDEX = "config.json", "model_index.json"
MOST_SETTINGS_BYTES = 64 << 20
"""Of a JSON or text file; the largest vocabularies have half of that."""
MOST_NUMBER = 10_000_000
"""In a network's settings; no width, depth or vocabulary comes near."""
MOST_SIDE = 1024
"""Latents per side that a network may say it was trained on: some compute a table of all their places."""
MOST_TENSORS, MOST_VALUES = 20_000, 10**12
"""Of any network."""
_LIBRARIES = ("diffusers", "transformers")
_WEIGHTS = ".safetensors"
_INDEX = ".index.json"
_TOKENIZER = "tokenizer_config.json"
_CODE = ("auto_map", "custom_pipelines", "custom_generate")
"""Settings that name code of the folder's own."""
_ANOTHER_MODEL = "adapter_config.json"
"""Makes transformers load the model that it names instead."""
_NEVER_OPENED = "special_tokens_map_file"
"""Many published tokenizers name a file of their author's machine here; nobody opens it."""
_SIDES = ("sample_size", "pos_embed_max_size")
_LEVELS = 2
"""Folders inside one another that are looked at; libraries open nothing deeper."""
_MORE = 2
_FEW_TENSORS, _FEW_VALUES = 1000, 1_000_000
"""So many more tensors and values than there are weights for a network may have: tied ones, and those of tables."""


def require_safe_folder(folder: Path) -> None:
    """Look at every file of a folder in diffusers or transformers format, and of the folders of its parts.

    Raises:
        InputError: something is no regular file, is damaged, leads out of the folder or asks for code.
    """
    if (folder / MODEL_INDEX).exists():
        _require_known_libraries(folder / MODEL_INDEX)
    for name in _files(folder):
        require_regular(folder / name)
        path = confined(folder, name)
        if path.suffix != _WEIGHTS and path.suffix in (".json", ".txt", ".model"):
            _require_settings(folder, name)


def _files(folder: Path) -> Iterator[str]:
    """Names of the files that a library may open: those of the folder, of its parts and of the folders in these."""
    waiting = [""]
    try:
        while waiting:
            part = waiting.pop()
            for entry in sorted(_shown(folder / part), key=lambda entry: entry.name):
                name = f"{part}{entry.name}"
                if not entry.is_dir():
                    yield name
                elif name.count("/") < _LEVELS:
                    waiting.append(f"{name}/")
    except OSError as error:
        raise InputError(f"{printable(error.filename)} cannot be read: {error.strerror}") from error


def _shown(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def _require_settings(folder: Path, name: str) -> None:
    path = folder / name
    if path.stat().st_size > MOST_SETTINGS_BYTES:
        raise InputError(f"{printable(path)} is larger than {MOST_SETTINGS_BYTES:,} bytes")
    if path.name == _ANOTHER_MODEL:
        raise InputError(f"{printable(path)} names another model, which is never loaded; delete it")
    if not path.name.endswith(("config.json", _INDEX)):
        return
    settings = read_json(path, MOST_SETTINGS_BYTES)
    if not isinstance(settings, dict):
        raise InputError(f"{printable(path)} holds no JSON object")
    if code := [key for key in _CODE if settings.get(key)]:
        raise InputError(f"{printable(path)} names code of its own ({code[0]}), which is never run")
    part = "" if path.parent == folder else f"{path.parent.name}/"
    for named in _named_files(path.name, settings):
        if named.startswith("/"):
            raise InputError(f"{printable(path)} names the file {printable(named)}; allowed are files beside it")
        require_regular(confined(folder, f"{part}{named}"))
    if path.name == CONFIG:
        _require_numbers(path, settings)


def _named_files(name: str, settings: dict[str, Any]) -> list[str]:
    """What a settings file names as files beside it."""
    if name.endswith(_INDEX):
        weights = settings.get("weight_map")
        return sorted({str(file) for file in weights.values()}) if isinstance(weights, dict) else []
    if name != _TOKENIZER:
        return []
    files = [value for key, value in settings.items() if key.endswith("_file") and key != _NEVER_OPENED]
    return [str(file) for file in files if file is not None]


def _require_numbers(path: Path, settings: Any) -> None:
    """Refuse numbers that no network has, wherever they stand; `json` takes 1e400 for infinity."""
    waiting = [("", settings)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(name), inner) for name, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(key, inner) for inner in value]
        elif isinstance(value, int | float) and not abs(value) <= MOST_NUMBER:
            raise InputError(f"{printable(path)}: {printable(key)} is {value:g}; allowed are {MOST_NUMBER:,} at most")


def _require_known_libraries(index: Path) -> None:
    parts = read_json(index, MOST_SETTINGS_BYTES)
    if not isinstance(parts, dict):
        raise InputError(f"{printable(index)} holds no JSON object")
    if not isinstance(parts.get("_class_name", ""), str):
        raise InputError(f"{printable(index)} names a pipeline of its own, whose code is never run")
    for name, named in parts.items():
        if name.startswith("_") or not isinstance(named, list):
            continue
        if len(named) != 2 or not all(isinstance(word, str | None) for word in named):
            raise InputError(f"{printable(index)}: {printable(name)} must be a list of a library and a class")


def require_library(index: Path, name: str, library: str | None) -> None:
    """A part that is loaded comes from diffusers or transformers: any other library is code that the folder chooses.

    Raises:
        InputError: it comes from elsewhere.
    """
    if library not in (*_LIBRARIES, None):
        allowed = " and ".join(_LIBRARIES)
        raise InputError(f"{printable(index)}: {printable(name)} is of {printable(library)}; allowed are {allowed}")


def require_possible_size(kind: Any, folder: Path) -> None:
    """Refuse settings of a network that is far larger than its weights, before memory is taken for it.

    The network is made on the meta device, which holds shapes alone, and only as long as its weights could fill it.

    Args:
        kind: the network's class in diffusers or transformers.
        folder: holds its `config.json` and its weights.

    Raises:
        InputError: it is larger, or its weights cannot be read. Other faults are left to whoever loads it.
    """
    config = read_json(folder / CONFIG, MOST_SETTINGS_BYTES)
    for key in _SIDES if hasattr(kind, "load_config") and folder.name != "vae" else ():
        side = config.get(key) if isinstance(config, dict) else None
        if isinstance(side, int) and not 0 < side <= MOST_SIDE:
            raise InputError(f"{printable(folder / CONFIG)}: {key} is {side}; allowed are 1 to {MOST_SIDE}")
    tensors, values = _stored(kind, folder)
    with no_larger(str(folder / CONFIG), _MORE * tensors + _FEW_TENSORS, _MORE * values + _FEW_VALUES):
        _build(kind, config)


def _build(kind: Any, config: dict[str, Any]) -> None:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        try:
            if hasattr(kind, "load_config"):  # of diffusers
                kind.from_config(config)
            else:
                kind(kind.config_class.from_dict(config))
        except InputError:
            raise
        except Exception:  # noqa: S110 settings that fit no network; who loads it says which
            pass


@contextmanager
def no_larger(config: str, tensors: int = MOST_TENSORS, values: int = MOST_VALUES) -> Iterator[None]:
    """Stop the making of a network as soon as it has more parameters, or more values in them.

    Args:
        config: where its settings are, for the message.
        tensors: most parameters.
        values: most values in all of them.

    Raises:
        InputError: it has more.
    """
    made = [0, 0]

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None:
            made[0] += 1
            made[1] += parameter.numel()
        if made[0] > tensors or made[1] > values:
            raise InputError(f"{printable(config)} describes a network far larger than its weights, or than any")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _stored(kind: Any, folder: Path) -> tuple[int, int]:
    """Number of tensors and of values in all weights of a folder, by their headers."""
    tensors = values = 0
    for path in folder.glob(f"*{_WEIGHTS}"):
        try:
            with open_tensors(path) as file:
                shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        except InputError as error:
            raise InputError(f"cannot load {kind.__name__}: {error}") from error
        tensors, values = tensors + len(shapes), values + sum(map(math.prod, shapes))
    return tensors, values
