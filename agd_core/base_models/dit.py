"""Class-conditional diffusion transformers (DiT, https://arxiv.org/abs/2212.09748) in diffusers format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from agd_core.base_models.base import AdapterSite, BaseModel
from agd_core.base_models.sources import (
    MODEL_INDEX,
    load_component,
    pipeline_class,
    read_json,
    resolve_source,
    stored_fingerprint,
)
from agd_core.condition import Condition
from agd_core.config import Config
from agd_core.denoiser import Latents, PerRow
from agd_core.errors import InputError

_PIPELINE = "DiTPipeline"


class DiTConfig(Config):
    """A DiT base model: the built-in teacher, a diffusers folder or a hub id such as facebook/DiT-XL-2-256."""

    kind: Literal["dit"] = "dit"
    source: str = "builtin:fashion-dit"
    """builtin:NAME, a folder in diffusers format, or a hub id; weights are read from safetensors files only."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision in which the base network runs; adapters always train in float32."""

    def build(self, device: torch.device) -> "DiT":
        """Load the model.

        Raises:
            InputError: the source is missing or is not a DiT.
        """
        folder = resolve_source(self.source, self.revision)
        if (found := pipeline_class(folder)) != _PIPELINE:
            raise InputError(
                f"base model {self.source} is a {found}, not a {_PIPELINE}; family 'dit' takes DiT models only"
            )
        return DiT(folder, getattr(torch, self.dtype), device)


class DiT(BaseModel):
    """A DiT with its VAE.

    A model with learned variance (`out_channels == 2 * in_channels`) predicts epsilon in its first half;
    the variance is dropped, as diffusers' own pipeline does.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
        from diffusers import AutoencoderKL, DiTTransformer2DModel

        super().__init__()
        self.transformer: Any = load_component(DiTTransformer2DModel, folder / "transformer", dtype, device)
        self.network = self.transformer
        self.vae: Any = load_component(AutoencoderKL, folder / "vae", torch.float32, device)
        self.device, self.dtype = device, dtype
        self.fingerprint = stored_fingerprint(folder / "transformer")
        self.decoder_fingerprint = stored_fingerprint(folder / "vae")
        config = self.transformer.config
        self.latent_shape = (config.in_channels, config.sample_size, config.sample_size)
        self.scheduler_config = read_json(folder / "scheduler" / "scheduler_config.json")
        self.null_class: int = config.num_embeds_ada_norm
        self.class_names = _class_names(read_json(folder / MODEL_INDEX).get("id2label", {}), self.null_class)
        self.width: int = config.num_attention_heads * config.attention_head_dim
        self._embedder: Any = self.transformer.transformer_blocks[0].norm1.emb

    def evaluate_network(self, latents: Latents, timestep: PerRow, condition: Condition) -> Latents:
        """One pass; epsilon `[batch, in_channels, height, width]` in float32."""
        inputs = latents.to(self.transformer.dtype)
        output: Tensor = self.transformer(inputs, timestep=timestep, class_labels=condition.class_labels).sample
        return output[:, : self.latent_shape[0]].float()

    def null_condition(self, batch: int) -> Condition:
        """The row after the last class of the label table."""
        return Condition(class_labels=torch.full((batch,), self.null_class, device=self.device))

    def class_condition(self, labels: Sequence[int]) -> Condition:
        """Class labels as they are."""
        return Condition(class_labels=torch.tensor(labels, device=self.device))

    @torch.no_grad()
    def decode(self, latents: Latents) -> Float[Tensor, "batch image_channels image_height image_width"]:
        """Through the VAE in float32."""
        images: Tensor = self.vae.decode(latents.float() / self.vae.config.scaling_factor).sample
        return images.clamp(-1, 1)

    def adapter_sites(self) -> tuple[AdapterSite, ...]:
        """The self-attention of every block."""
        blocks = len(self.transformer.transformer_blocks)
        return tuple(AdapterSite(f"transformer_blocks.{i}.attn1", self.width) for i in range(blocks))

    def embed_timestep(self, timestep: PerRow) -> Float[Tensor, "batch time_width"]:
        """The first block's timestep embedder (diffusers keeps one copy per block)."""
        projected = self._embedder.time_proj(timestep).to(self.transformer.dtype)
        features: Tensor = self._embedder.timestep_embedder(projected)
        return features.float()

    def embed_condition(self, condition: Condition) -> Float[Tensor, "batch 1 condition_width"]:
        """The first block's label table, one token per row."""
        features: Tensor = self._embedder.class_embedder(condition.class_labels)
        return features.float().unsqueeze(1)

    @property
    def embedding_widths(self) -> tuple[int, int]:
        """Both embeddings are as wide as the hidden states."""
        return self.width, self.width

    @property
    def parameters(self) -> int:
        """All parameters less the label rows of classes that the model does not name."""
        total = sum(p.numel() for p in self.network.parameters())
        unused_rows = self.null_class - len(self.class_names)
        return total - unused_rows * self.width * len(self.transformer.transformer_blocks)


def _class_names(id2label: dict[str, str], table_rows: int) -> tuple[str, ...]:
    """First name of every class in label order; numbers where the pipeline names none."""
    if not all(label.isdigit() for label in id2label):
        raise InputError(f"{MODEL_INDEX}: id2label must map class numbers to names")
    classes = max(map(int, id2label)) + 1 if id2label else table_rows
    return tuple(id2label.get(str(label), str(label)).partition(",")[0] for label in range(classes))
