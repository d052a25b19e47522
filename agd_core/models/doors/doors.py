"""How a pipeline's own call reaches an adapter: through the guidance embedding, or through the doubled batch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from agd_core.basics.errors import InputError
from agd_core.models.doors.guidance_embedding import WIDTH, decode
from agd_core.models.doors.one_pass import check_one_pass
from agd_core.models.doors.running_call import FOR_CFG, RunningCall, running_call


@dataclass(frozen=True)
class Limits:
    """What a pipeline call must keep to."""

    adapter: str
    guidance_range: tuple[float, float]
    prediction_type: str
    guidance: Mapping[str, Any]
    """What it has learnt, see `Guidance.teacher_identity`."""

    @property
    def learnt(self) -> dict[str, Any]:
        """What it has learnt, as arguments of a pipeline's call: to be given so or not at all."""
        rescale, negative = self.guidance.get("rescale"), self.guidance.get("negative_prompt")
        learnt = {"guidance_rescale": rescale or None, "negative_prompt": negative}
        return {name: value for name, value in learnt.items() if value is not None}

    def check(self, call: RunningCall, rows: int, is_doubled: bool = False) -> None:
        """The user asks for nothing else, and one row per image would be guided, see `check_one_pass`.

        Raises:
            InputError: what it is, and what to do.
        """
        call.check_arguments(self.adapter, self.learnt, is_doubled)
        call.check_setting(self.adapter, self.guidance_range, self.prediction_type)
        check_one_pass(call, rows, self.adapter, self)


@dataclass(frozen=True)
class Passage:
    """How a network call goes on."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    """The arguments that the network gets."""
    guidance_scale: Tensor | None = None
    """`[batch]`, float32; None: the adapter keeps out, and the network gives its plain conditional answer."""
    off_at_one: bool = False
    """Nobody could say yet whether the scale is above 1, where guidance begins."""


class Door(ABC):
    """How the pipelines of one class of networks let an adapter guide in one pass."""

    @abstractmethod
    def open(self, network: Any) -> None:
        """Make the pipelines of this network hand over their guidance.

        Raises:
            InputError: this network cannot.
        """

    @abstractmethod
    def close(self, network: Any) -> None:
        """Undo `open`."""

    @abstractmethod
    def enter(self, latents: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], limits: Limits) -> Passage:
        """Before the network, while the door is open.

        Raises:
            InputError: the pipeline asks for what an adapter cannot give.
        """

    @abstractmethod
    def leave(self, output: Any) -> Any:
        """After a guided call: what the pipeline gets."""


class GuidanceEmbedding(Door):
    """UNets: a pipeline whose UNet says it takes a guidance embedding makes one pass by itself and hands it over.

    It looks at an attribute of the UNet's config. What is saved with the UNet are the config's items, which stay as
    they are; diffusers' own IP-Adapter loader does the same with another attribute.
    """

    def open(self, network: Any) -> None:
        """Ask for the embedding."""
        if network.config.time_cond_proj_dim not in (None, WIDTH):
            raise InputError("this UNet takes a guidance embedding itself: it is guidance-distilled already")
        network.config.time_cond_proj_dim = WIDTH

    def close(self, network: Any) -> None:
        """No longer ask."""
        network.config.time_cond_proj_dim = None

    def enter(self, latents: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], limits: Limits) -> Passage:
        """Take the embedding out of the call: the stock UNet has no use for it."""
        embedding, stock = kwargs.get("timestep_cond"), kwargs | {"timestep_cond": None}
        if (call := running_call()) is None:
            scale = None if embedding is None else decode(embedding)
            return Passage(args, stock, scale, off_at_one=True)
        if call.guidance_scale <= 1:
            return Passage(args, stock)
        if embedding is None:
            raise InputError(
                f"{call.classes[0]} hands its UNet no guidance embedding, adapter {limits.adapter!r} cannot guide it; "
                f"{FOR_CFG}; where the UNet's config was changed since, set_enabled(pipe, True) asks again"
            )
        limits.check(call, latents.shape[0])
        _check_image_rows(call, kwargs, latents.shape[0])
        return Passage(args, stock, _full(latents, latents.shape[0], call.guidance_scale))

    def leave(self, output: Any) -> Any:
        """The output as it is."""
        return output


class DoubledBatch(Door):
    """Pipelines that always double the batch for guidance: the network sees the conditional half only, and its answer
    is handed back for both halves. The pipeline's `uncond + guidance_scale * (cond - uncond)` then leaves it as it is.

    Args:
        pipelines: their class names.
        conditional_half: 0 where the conditional rows come first, 1 where they come last.
    """

    def __init__(self, pipelines: tuple[str, ...], conditional_half: int) -> None:
        self.pipelines = pipelines
        self.conditional_half = conditional_half

    def open(self, network: Any) -> None:
        """Always open."""

    def close(self, network: Any) -> None:
        """Nothing was done."""

    def enter(self, latents: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], limits: Limits) -> Passage:
        """Halve every tensor of the call that has the doubled batch's rows."""
        call = running_call()
        if call is None or call.guidance_scale <= 1:
            return Passage(args, kwargs)
        if not set(self.pipelines) & set(call.classes):
            raise InputError(f"adapter {limits.adapter!r} cannot guide a {call.classes[0]}; {FOR_CFG}")
        rows = latents.shape[0]
        limits.check(call, rows - rows // 2, is_doubled=True)
        args, kwargs = tree_map(lambda value: self._half(value) if _has_rows(value, rows) else value, (args, kwargs))
        return Passage(args, kwargs, _full(latents, rows // 2, call.guidance_scale))

    def leave(self, output: Any) -> Any:
        """The conditional answer in both halves."""
        return tree_map(lambda value: torch.cat([value, value]) if isinstance(value, Tensor) else value, output)

    def _half(self, tensor: Tensor) -> Tensor:
        return tensor.chunk(2)[self.conditional_half]


def _check_image_rows(call: RunningCall, kwargs: Mapping[str, Any], rows: int) -> None:
    """An IP-Adapter's image embeddings are those of the conditional rows; others would be taken without a word."""
    embeddings = (kwargs.get("added_cond_kwargs") or {}).get("image_embeds") or ()
    if any(embedding.shape[0] != rows for embedding in embeddings):
        raise InputError(
            f"{call.classes[0]}: ip_adapter_image_embeds must be the conditional rows, without those for CFG; {FOR_CFG}"
        )


def _full(latents: Tensor, rows: int, guidance_scale: float) -> Tensor:
    return _scales(rows, guidance_scale, latents.device)


@lru_cache(maxsize=4)
def _scales(rows: int, guidance_scale: float, device: torch.device) -> Tensor:
    """The same tensor for all steps of a pipeline's call, by which they are recognised."""
    with torch.inference_mode(False):  # it outlives the call that makes it
        return torch.full((rows,), guidance_scale, device=device)


def _has_rows(value: Any, rows: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == rows
