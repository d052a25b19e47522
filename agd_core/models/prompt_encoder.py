"""Prompts to tensors by the stock pipeline's own `encode_prompt`; text encoders visit the device only meanwhile."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agd_core.basics.errors import InputError, first_line
from agd_core.basics.safe_files import printable
from agd_core.models.backbones import NULL
from agd_core.models.folder import CONFIG, MODEL_INDEX, require_possible_size
from agd_core.models.quiet import quiet
from agd_core.models.reading import pipeline_class, read_settings, weights_variant
from agd_core.models.text_identity import text_fingerprint

_NOT_NEEDED = {"unet", "transformer", "vae", "safety_checker", "feature_extractor", "image_encoder"}
_COLLECTING = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
PROMPTS_TOGETHER = 32
"""How many go through the text encoders at once."""


class PromptEncoder:
    """The text encoders of a diffusers folder, loaded when they are first needed.

    Args:
        folder: of the pipeline.
        names: of what its `encode_prompt` answers, see `Backbone.encoded`.
        dtype: precision of the encoders.
        device: where they work; they rest on the CPU.
    """

    def __init__(self, folder: Path, names: Sequence[str], dtype: torch.dtype, device: torch.device) -> None:
        self._folder, self._names, self._dtype, self._device = folder, names, dtype, device

    def encode(self, prompts: Sequence[str]) -> list[dict[str, Tensor]]:
        """The encoded prompts by name in parts of some rows, on the device."""
        with self._on_device():
            starts = range(0, len(prompts), PROMPTS_TOGETHER)
            parts = [self._answers(prompts[i : i + PROMPTS_TOGETHER], False) for i in starts]
        return [{name: part[name] for name in part if not name.startswith(NULL)} for part in parts]

    def encode_null(self, negative_prompt: str | None) -> dict[str, Tensor]:
        """What the pipeline takes for this negative prompt, or for "no prompt" where nobody gives one; one row."""
        given = {} if negative_prompt is None else {"negative_prompt": [negative_prompt]}
        with self._on_device():
            answers = self._answers([negative_prompt or ""], True, **given)
        null = {name.removeprefix(NULL): tensor for name, tensor in answers.items() if name.startswith(NULL)}
        return null or answers

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the encoders and their tokenizers as they are stored, see `text_fingerprint`."""
        return text_fingerprint(self._folder)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """The text encoders on their device; they go there and back once for a whole list."""
        self._pipe.to(self._device)
        try:
            yield
        finally:
            self._pipe.to("cpu", silence_dtype_warnings=True)

    @torch.no_grad()
    def _answers(self, prompts: Sequence[str], with_null: bool, **given: list[str]) -> dict[str, Tensor]:
        encode = self._pipe.encode_prompt
        takes = {name: it for name, it in signature(encode).parameters.items() if it.kind not in _COLLECTING}
        settings = {
            "prompt": list(prompts),
            "device": self._device,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": with_null,
            **given,
        }
        required = {name for name, it in takes.items() if it.default is Parameter.empty}
        known = {name: value for name, value in settings.items() if name in takes}
        with quiet():
            answers = encode(**dict.fromkeys(required) | known)  # SD3 wants prompts 2 and 3 named, if only as None
        return {name: answer for name, answer in zip(self._names, answers, strict=False) if answer is not None}

    @cached_property
    def _pipe(self) -> Any:
        """The stock pipeline without its network and its VAE."""
        import diffusers

        index = read_settings(self._folder / MODEL_INDEX)
        _require_possible_encoders(self._folder, index)
        absent = dict.fromkeys(_NOT_NEEDED & set(index))
        kind = getattr(diffusers, pipeline_class(self._folder))
        try:
            with quiet():
                pipe: Any = kind.from_pretrained(
                    self._folder,
                    dtype=self._dtype,
                    variant=weights_variant(self._folder / "text_encoder"),
                    use_safetensors=True,
                    local_files_only=True,
                    **absent,
                )
        except Exception as error:  # a damaged folder may raise anything
            reason = printable(first_line(error))
            raise InputError(f"cannot load the text encoders of {printable(self._folder)}: {reason}") from error
        return pipe


def _require_possible_encoders(folder: Path, index: dict[str, Any]) -> None:
    import transformers

    for name, named in index.items():
        if name not in _NOT_NEEDED and isinstance(named, list) and (folder / name / CONFIG).exists():
            kind = getattr(transformers, str(named[1]), None)
            if hasattr(kind, "config_class"):
                require_possible_size(kind, folder / name)
