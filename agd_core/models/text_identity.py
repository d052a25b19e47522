"""Identity of what a diffusers folder makes of prompts: its text encoders and its tokenizers."""

from pathlib import Path
from typing import Any

from agd_core.basics.digest import digest, file_digest
from agd_core.models.folder import CONFIG, MODEL_INDEX
from agd_core.models.reading import read_settings, stored_fingerprint

_ENCODER, _TOKENIZER, _WEIGHTS = "text_encoder", "tokenizer", "model"
_NOTES = ("transformers_version", "dtype", "torch_dtype")
"""Settings of an encoder that say how it was saved; those that begin with "_" do too. We choose the precision."""
_FILES = ("*.json", "*.txt", "*.model")
"""Of a tokenizer."""


def text_fingerprint(folder: Path) -> str:
    """sha256 over every encoder's weights and settings, and over every file of the tokenizers.

    Raises:
        InputError: a file is damaged.
    """
    parts = sorted(name for name in read_settings(folder / MODEL_INDEX) if (folder / name).is_dir())
    encoders = {name: _encoder(folder / name) for name in parts if name.startswith(_ENCODER)}
    return digest(encoders | {name: _tokenizer(folder / name) for name in parts if name.startswith(_TOKENIZER)})


def _encoder(part: Path) -> dict[str, Any]:
    settings = read_settings(part / CONFIG, "transformers") if (part / CONFIG).exists() else {}
    kept = {name: value for name, value in settings.items() if name not in _NOTES and not name.startswith("_")}
    return {"weights": stored_fingerprint(part, _WEIGHTS), "settings": kept}


def _tokenizer(part: Path) -> dict[str, str]:
    paths = sorted({path for pattern in _FILES for path in part.glob(pattern)})
    return {path.name: file_digest(path) for path in paths}
