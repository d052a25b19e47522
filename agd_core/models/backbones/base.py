"""What must be known about a class of denoising networks, one file per class.

How it is called, what it embeds, where adapters sit; what it is conditioned on and what stands for "no condition"; the
shapes of its inputs; its door into stock pipelines. A backbone looks at one of diffusers' networks and changes nothing
of it: models, students and stock pipelines all reach their network through it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.basics.errors import InputError
from agd_core.models.condition import MASK, Condition
from agd_core.models.denoiser import Latents, PerRow, Prediction
from agd_core.models.doors.doors import Door

PROMPT = "encoder_hidden_states"
"""The encoded prompt, `[batch, tokens, width]`."""
NULL = "null_"
"""Begins the names of tensors that stand for "no prompt", see `Backbone.encoded`."""


@dataclass(frozen=True)
class AdapterSite:
    """A module whose output an adapter may add to."""

    path: str
    """Dotted path inside the network."""
    width: int
    """Channels of the hidden states that enter and leave it."""
    layout: Literal["tokens", "map"] = "tokens"
    """Of the hidden states: `[batch, tokens, width]`, or a feature map `[batch, width, *sides]`."""


@dataclass(frozen=True)
class Inlet(AdapterSite):
    """A module of the network's second half to which features of the latents' own grid may come in.

    They are added to the hidden states that enter it, or to one of its skip connections.
    """

    shrunk: int = 1
    """How many times its feature map's sides are shorter than the latents'."""
    skip: int | None = None
    """Place among the module's skip connections; None: its hidden states."""


@dataclass(frozen=True)
class NetworkCall:
    """What a network was called with, in our words."""

    latents: Tensor
    """`[batch, channels, *sides]`."""
    timestep: PerRow
    condition: Condition


class Backbone(ABC):
    """One of diffusers' denoising networks, in the words of this project."""

    class_name: ClassVar[str]
    """Its class in diffusers."""
    component: ClassVar[str]
    """What pipelines call it: "unet" or "transformer"."""
    pipelines: ClassVar[tuple[str, ...]]
    """Pipelines of diffusers whose folders hold a model that can be distilled."""
    leading_arguments: ClassVar[tuple[str, ...]]
    """Names of the arguments of its `forward` that callers may give by position."""
    door: ClassVar[Door]
    """How stock pipelines let an adapter guide in one pass."""
    encoded: ClassVar[tuple[str, ...]] = ()
    """What `encode_prompt` of its pipelines answers, in this order; empty: it takes classes. What begins with `NULL`
    is for no prompt; where nothing does, that is an encoded empty prompt."""
    start_tokens: ClassVar[int] = 0
    """Tokens at the beginning of an encoded prompt that are the same whatever it says, as CLIP's start of text is."""
    classes: int = 0
    """Rows of its label table; the row after them is the null class. 0: it takes prompts."""
    attention: ClassVar[str]
    """Ends the path of every attention that the AGD paper adapts."""
    time_embedder: ClassVar[str]
    """Path of the module that embeds the timestep, by its `time_proj` and its `timestep_embedder`."""
    other_stream: ClassVar[tuple[str, ...]] = ()
    """Modules of a transformer block that shape nothing but the prompt's tokens behind it."""
    timestep_embedder: ClassVar[str] = "timestep_embedder"
    """Ends the path of every module that makes the timestep's embedding of its sinusoids."""
    any_size: ClassVar[bool] = True
    """Whether it takes latents of other sides than it was trained on."""

    def __init__(self, network: Any) -> None:
        self.network = network

    @property
    def sites(self) -> tuple[AdapterSite, ...]:
        """Every attention that the AGD paper adapts, in the order of the network's modules."""
        found = ((path, it) for path, it in self.network.named_modules() if path.endswith(f".{self.attention}"))
        return tuple(AdapterSite(path, attention.query_dim) for path, attention in found)

    @property
    def inlets(self) -> tuple[Inlet, ...]:
        """Where an external network's features come in; a UNet's skip connections in their order, then its middle.

        Raises:
            InputError: nobody has said where that is in this class of networks.
        """
        raise InputError(f"methods: no guide is known for networks of class {self.class_name}")

    def through(
        self, blocks: Iterable[Callable[..., Any]], call: NetworkCall, offset: Tensor
    ) -> Iterator[Float[Tensor, "batch tokens width"]]:
        """The image's tokens behind each of some transformer blocks.

        Args:
            blocks: as the network has them, one behind the other; its own are the network itself.
            call: what the network would be called with.
            offset: added to the tokens that enter the first block.

        Raises:
            InputError: this class of networks is no row of blocks, or nobody has said how they are called.
        """
        raise InputError(f"methods: nobody has said how blocks of a {self.class_name} are called")

    def latter_blocks(self, width: int) -> tuple[Inlet, ...]:
        """The later half of a transformer's blocks, as `inlets`; of an odd number the middle one too."""
        blocks, patch = len(self.network.transformer_blocks), int(self.network.config.patch_size)
        return tuple(Inlet(f"transformer_blocks.{i}", width, shrunk=patch) for i in range(blocks // 2, blocks))

    @property
    @abstractmethod
    def embedding_widths(self) -> tuple[int, int]:
        """Widths of `embed_timestep` and of `embed_condition`."""

    @abstractmethod
    def call(self, latents: Latents, timestep: PerRow, condition: Condition) -> Prediction:
        """Evaluate the network once; its raw output in float32."""

    @abstractmethod
    def condition_of(self, arguments: Mapping[str, Any]) -> Condition:
        """The condition among the named arguments of a call."""

    def embed_timestep(self, timestep: PerRow) -> Float[Tensor, "batch time_width"]:
        """The network's own timestep embedding, float32."""
        embedder = self.network.get_submodule(self.time_embedder)
        features: Tensor = embedder.timestep_embedder(embedder.time_proj(timestep).to(self.dtype))
        return features.float()

    def embed_condition(self, condition: Condition) -> Float[Tensor, "batch tokens condition_width"]:
        """The network's own view of the condition, one or more tokens per row, float32.

        A prompt's are its tokens as the text encoders give them, zeros where a mask says that they do not count.
        """
        tokens = condition[PROMPT].float()
        return tokens * condition[PROMPT + MASK][:, :, None] if PROMPT + MASK in condition else tokens

    @classmethod
    @abstractmethod
    def empty_condition(cls, config: Mapping[str, Any], rows: int, tokens: int) -> Condition:
        """A condition of this shape, its values left open.

        Args:
            config: the network's, as diffusers writes it.
            rows: the batch.
            tokens: of an encoded prompt, see `prompt_tokens`.
        """

    @property
    def latent_channels(self) -> int:
        """Channels of the latents, which come first in what the network takes; an inpainting sibling takes more."""
        config = self.network.config
        return int(min(config.in_channels, config.out_channels or config.in_channels))

    @classmethod
    def prompt_tokens(cls, encoders: Sequence[Mapping[str, Any]]) -> int:
        """Tokens of one encoded prompt.

        Args:
            encoders: the text encoders' configurations, as transformers writes them.
        """
        return max((int(config.get("max_position_embeddings", 0)) for config in encoders), default=0)

    @classmethod
    def latent_shape(cls, config: Mapping[str, Any]) -> tuple[int, ...]:
        """(channels, *sides) of the latents that a network of this configuration was trained on."""
        return int(config["in_channels"]), int(config["sample_size"]), int(config["sample_size"])

    def prompt_condition(self, encoded: Mapping[str, Tensor], pixels: int) -> Condition:
        """The condition of prompts for images of so many pixels per side, from what the text encoders answered."""
        return Condition(**encoded)

    def image_tokens(self, latent_shape: Sequence[int]) -> int | None:
        """Tokens that it makes of a latent, by which a flow-matching schedule may be shifted; None: it makes none."""
        return None

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments of a call by name."""
        return dict(zip(self.leading_arguments, args, strict=False)) | dict(kwargs)

    def read_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> NetworkCall:
        """What somebody else, such as a stock pipeline, called the network with."""
        arguments = self.named(args, kwargs)
        latents: Tensor = arguments[self.leading_arguments[0]]
        timestep = torch.as_tensor(arguments["timestep"], device=latents.device).float()
        return NetworkCall(latents, timestep.expand(latents.shape[0]), self.condition_of(arguments))

    @contextmanager
    def calling(self, network: Any) -> Iterator[None]:
        """Call another module in the network's place inside the block, such as the network compiled."""
        own, self.network = self.network, network
        try:
            yield
        finally:
            self.network = own

    @property
    def dtype(self) -> torch.dtype:
        """Precision in which the network runs."""
        dtype: torch.dtype = self.network.dtype
        return dtype

    @property
    def parameters(self) -> int:
        """All parameters of the network."""
        return sum(p.numel() for p in self.network.parameters())

    def reachable_parameters(self, classes: int) -> int:
        """Those that its inputs can reach where so many classes are asked for."""
        return self.parameters
