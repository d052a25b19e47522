"""Where miniatures are kept: one folder per name, format and versions of the libraries that write it."""

import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from agd_core.basics.checkpoint import system_errors
from agd_core.basics.digest import digest
from agd_core.basics.errors import InputError, first_line
from agd_core.basics.home import cache_folder
from agd_core.builtin.miniatures.dit import write_dit
from agd_core.builtin.miniatures.pixart_sigma import write_pixart_sigma
from agd_core.builtin.miniatures.stable_diffusion import write_stable_diffusion, write_stable_diffusion_v
from agd_core.builtin.miniatures.stable_diffusion_3 import write_stable_diffusion_3
from agd_core.builtin.miniatures.stable_diffusion_xl import write_stable_diffusion_xl

MINIATURES: dict[str, Callable[[Path], None]] = {
    "tiny-dit": write_dit,
    "tiny-pixart": write_pixart_sigma,
    "tiny-sd": write_stable_diffusion,
    "tiny-sd-v": write_stable_diffusion_v,
    "tiny-sd3": write_stable_diffusion_3,
    "tiny-sdxl": write_stable_diffusion_xl,
}
"""Writer of each miniature: a complete diffusers folder, equal bytes at every call."""

_FORMAT_VERSION = 1
_WRITTEN_BY = ("torch", "diffusers", "transformers", "tokenizers", "safetensors")
_MODEL_INDEX = "model_index.json"


def write_miniature(name: str, folder: Path) -> None:
    """Write one miniature in diffusers format; the global random state is left alone.

    Raises:
        InputError: unknown name, or libraries that cannot write it.
    """
    if name not in MINIATURES:
        raise InputError(f"unknown miniature {name!r}; known: {', '.join(MINIATURES)}")
    try:
        with system_errors():
            MINIATURES[name](folder)
    except ImportError as error:
        raise InputError(f"miniature {name} needs the package transformers: {first_line(error)}") from error


def miniature_folder(name: str) -> Path:
    """The miniature's folder under $XDG_CACHE_HOME (or ~/.cache), written at the first call.

    Any number of processes may ask at once; a folder that is there is whole.

    Raises:
        InputError: unknown name, or a cache that cannot be written.
    """
    folder = _cache_root() / f"{name}-{_FORMAT_VERSION}-{_library_digest()}"
    if not (folder / _MODEL_INDEX).is_file():
        try:
            _write_at_once(name, folder)
        except OSError as error:
            reason = f"{error.strerror or first_line(error)}; set XDG_CACHE_HOME to a folder that can be written"
            raise InputError(f"cannot write miniature {name} to {folder.parent}: {reason}") from error
    return folder


def _cache_root() -> Path:
    return cache_folder() / "agd-pipeline" / "miniatures"


def _library_digest() -> str:
    return digest({package: version(package) for package in _WRITTEN_BY})[:8]


def _write_at_once(name: str, folder: Path) -> None:
    """Into a temporary sibling, then renamed; whoever is second finds the first one's folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as temporary:
        made = Path(temporary) / name
        write_miniature(name, made)
        try:
            os.rename(made, folder)
        except OSError:
            if not (folder / _MODEL_INDEX).is_file():
                raise
