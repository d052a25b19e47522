"""Where a model's files are: shipped with this package, written by it, a local folder, or a hub id."""

from pathlib import Path

from agd_core.basics.config import BUILTIN
from agd_core.basics.digest import digest, file_digest
from agd_core.basics.errors import InputError, first_line
from agd_core.basics.home import expand
from agd_core.basics.safe_files import printable
from agd_core.builtin.cache import cached_folder
from agd_core.builtin.miniatures import MINIATURES, miniature_folder
from agd_core.builtin.shipped import FINE_TUNED, MODEL, names, shipped, shipped_folder
from agd_core.models.difference import write_fine_tuned


def resolve_source(source: str, revision: str | None = None) -> Path:
    """The local folder in diffusers format that `source` names; a hub id is downloaded or taken from the cache.

    Raises:
        InputError: unknown built-in name, no such folder, no model_index.json, or a hub id that cannot be had.
    """
    if source.startswith(BUILTIN):
        return _builtin_model(source.removeprefix(BUILTIN))
    if (folder := expand(source)).is_dir():
        return folder
    if source.startswith((".", "/", "~")) or source.count("/") != 1:
        raise InputError(
            f"base model folder {source} does not exist; give a diffusers folder, a hub id (owner/name) or builtin:NAME"
        )
    return _download(source, revision)


def builtin_folder(name: str) -> Path:
    """The folder of anything that ships, as stock calls take it; a fine-tuned model is written at the first call.

    Args:
        name: such as "emoji-sd-lora", also with "builtin:" before it.

    Raises:
        InputError: nothing ships under this name, or it is not in this installation.
    """
    name = name.removeprefix(BUILTIN)
    if name in MINIATURES:
        return miniature_folder(name)
    folder, row = shipped_folder(name), shipped(name)
    return _put_together(name, shipped_folder(row.base), folder) if row.kind == FINE_TUNED else folder


def _builtin_model(name: str) -> Path:
    if name not in (known := [*names(MODEL, FINE_TUNED), *MINIATURES]):
        raise InputError(f"unknown built-in model {printable(name)!r}; known: {', '.join(known)}")
    return builtin_folder(name)


def _put_together(name: str, base: Path, difference: Path) -> Path:
    """A base and what a fine-tuned model has in place of its tensors, as one folder in the user's cache."""
    paths = sorted(path for part in (base, difference) for path in part.rglob("*") if path.is_file())
    content = digest([[path.name, file_digest(path)] for path in paths])[:16]
    return cached_folder(
        f"fine-tuned/{name}-{content}", f"builtin:{name}", lambda folder: write_fine_tuned(difference, base, folder)
    )


def _download(hub_id: str, revision: str | None) -> Path:
    """What the stock pipeline would download, and nothing else of the repository."""
    from diffusers import DiffusionPipeline

    try:
        return Path(DiffusionPipeline.download(hub_id, revision=revision, use_safetensors=True))
    except Exception as error:
        reason = f"is no local folder and could not be downloaded: {first_line(error)}"
        raise InputError(f"base model {hub_id!r} {reason}") from error
