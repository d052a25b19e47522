"""Where miniatures are kept: one folder per name, format and versions of the libraries that write it."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from agd_core.basics.checkpoint import system_errors
from agd_core.basics.digest import digest
from agd_core.basics.errors import InputError, first_line
from agd_core.builtin.cache import cached_folder
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
    """The miniature's folder in the user's cache, see `cached_folder`.

    Raises:
        InputError: unknown name, or a cache that cannot be written.
    """
    place = f"miniatures/{name}-{_FORMAT_VERSION}-{_library_digest()}"
    return cached_folder(place, f"miniature {name}", lambda folder: write_miniature(name, folder))


def _library_digest() -> str:
    return digest({package: version(package) for package in _WRITTEN_BY})[:8]
