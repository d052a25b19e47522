"""Class-conditional diffusion transformers (DiT, https://arxiv.org/abs/2212.09748) in diffusers format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float

from agd_core.backbones import DiTBackbone
from agd_core.base_models.base import BaseModel
from agd_core.base_models.decoder import Decoder
from agd_core.base_models.family import FamilyConfig
from agd_core.base_models.folder import MODEL_INDEX
from agd_core.base_models.sources import load_component, read_json, stored_fingerprint
from agd_core.condition import Condition
from agd_core.denoiser import Latents
from agd_core.errors import InputError


class DiTConfig(FamilyConfig):
    """A DiT base model: the built-in teacher, a diffusers folder or a hub id such as facebook/DiT-XL-2-256."""

    pipelines = ("DiTPipeline",)

    kind: Literal["dit"] = "dit"
    source: str = "builtin:fashion-dit"
    """builtin:NAME, a folder in diffusers format, or a hub id; weights are read from safetensors files only."""
    learned_variance: Literal["drop", "keep"] = "drop"
    """Whether the variance that some DiTs predict beside epsilon is collected, learnt and used (ddpm alone uses it)."""

    def open(self, folder: Path, device: torch.device) -> "DiT":
        """Load the model from a local folder."""
        return DiT(folder, self, device)


class DiT(BaseModel):
    """A DiT with its VAE.

    A model with learned variance (`out_channels == 2 * in_channels`) predicts epsilon in its first half. Where the
    variance is dropped, as diffusers' own pipeline does, the ddpm sampler takes the fixed small one.
    """

    def __init__(self, folder: Path, config: DiTConfig, device: torch.device) -> None:
        from diffusers import DiTTransformer2DModel

        super().__init__()
        self.device, self.dtype = device, config.torch_dtype
        network: Any = load_component(DiTTransformer2DModel, folder / "transformer", self.dtype, device)
        self.backbone = DiTBackbone(network)
        self.decoder = Decoder(folder, device)
        self.fingerprint = stored_fingerprint(folder / "transformer")
        self.decoder_fingerprint = self.decoder.fingerprint
        self.latent_shape = (network.config.in_channels, network.config.sample_size, network.config.sample_size)
        self.scheduler_config = read_json(folder / "scheduler" / "scheduler_config.json")
        self._settle_variance(config)
        self.null_class: int = network.config.num_embeds_ada_norm
        self.class_names = _class_names(read_json(folder / MODEL_INDEX).get("id2label", {}), self.null_class)

    def _settle_variance(self, config: DiTConfig) -> None:
        channels, out_channels = self.latent_shape[0], self.backbone.network.config.out_channels
        if config.learned_variance == "drop":
            self.prediction_channels = channels
            self.scheduler_config["variance_type"] = "fixed_small"
            return
        if out_channels != 2 * channels:
            raise InputError(
                f"base_model.learned_variance=keep: {config.source} predicts {out_channels} channels for latents of "
                f"{channels}, so it has learnt no variance; set it to drop"
            )
        self.prediction_channels = out_channels
        self.scheduler_config["variance_type"] = "learned_range"

    def null_condition(self, batch: int) -> Condition:
        """The row after the last class of the label table."""
        return Condition(class_labels=torch.full((batch,), self.null_class, device=self.device))

    def class_condition(self, labels: Sequence[int]) -> Condition:
        """Class labels as they are."""
        return Condition(class_labels=torch.tensor(labels, device=self.device))

    def decode(self, latents: Latents) -> Float[torch.Tensor, "batch image_channels image_height image_width"]:
        """Through the VAE in float32."""
        return self.decoder.decode(latents)

    @property
    def parameters(self) -> int:
        """All parameters less the label rows of classes that the model does not name."""
        unused_rows = self.null_class - len(self.class_names)
        width = self.backbone.embedding_widths[1]
        return self.backbone.parameters - unused_rows * width * len(self.backbone.sites)


def _class_names(id2label: dict[str, str], table_rows: int) -> tuple[str, ...]:
    """First name of every class in label order; numbers where the pipeline names none."""
    if not all(label.isdigit() for label in id2label):
        raise InputError(f"{MODEL_INDEX}: id2label must map class numbers to names")
    classes = max(map(int, id2label)) + 1 if id2label else table_rows
    return tuple(id2label.get(str(label), str(label)).partition(",")[0] for label in range(classes))
