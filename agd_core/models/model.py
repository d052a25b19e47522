"""A frozen model: its network, text encoders, VAE and noise schedule, as a diffusers folder holds them."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agd_core.basics.digest import digest
from agd_core.basics.errors import InputError
from agd_core.models.ask import Ask
from agd_core.models.autoencoder import Autoencoder
from agd_core.models.backbones import Backbone
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Denoiser, Latents, PerRow, Prediction
from agd_core.models.folder import MODEL_INDEX
from agd_core.models.prompt_encoder import PromptEncoder
from agd_core.models.prompt_length import CutPrompts, cut_prompts
from agd_core.models.reading import load_component, read_settings, stored_fingerprint, weights_variant
from agd_core.models.schedulers import IMAGE_TOKENS, is_flow_matching


class BaseModel(Denoiser):
    """A frozen network with its VAE, scheduler and conditioning; itself the unguided `Denoiser`.

    It is asked either for classes (`class_names` and `class_condition`) or for prompts (`prompt_condition`). Text
    encoders and VAE are loaded when they are first asked, rest on the CPU and visit the device; training asks neither.

    A network with learned variance predicts epsilon in the first half of its channels. Unless `keep_variance` is
    called the rest is dropped, as diffusers' own pipelines do; the ddpm sampler then takes the fixed small one.

    Args:
        folder: complete, in diffusers format.
        kind: its class of networks.
        dtype: precision in which the network and the text encoders run.
        device: where they run.
    """

    latent_shape: tuple[int, ...]
    """(channels, *sides) of one latent."""
    prediction_channels: int
    """Channels of a prediction: those of a latent, and as many more where a learned variance is kept."""
    scheduler_config: dict[str, Any]
    """The diffusers scheduler configuration that the model was trained with."""
    class_names: tuple[str, ...] = ()
    """Names of the classes, empty for a model that takes prompts."""
    fingerprint: str
    """Identity of the network's weights as they are stored; the precision they are loaded in does not matter."""
    decoder_fingerprint: str
    """The same for the VAE."""
    network_evaluations: int = 0
    """Rows that went through the network so far."""

    def __init__(self, folder: Path, kind: type[Backbone], dtype: torch.dtype, device: torch.device) -> None:
        import diffusers

        self.device, self.dtype, self._folder = device, dtype, folder
        self._nulls: dict[str | None, Condition] = {}
        part = folder / kind.component
        network = load_component(getattr(diffusers, kind.class_name), part, dtype, device, weights_variant(part))
        self.backbone = kind(network)
        self.autoencoder = Autoencoder(folder, device)
        self.encoder = PromptEncoder(folder, kind.encoded, dtype, device) if kind.encoded else None
        self.fingerprint, self.decoder_fingerprint = stored_fingerprint(part), self.autoencoder.fingerprint
        self.latent_shape = kind.latent_shape(self.backbone.network.config)
        self.prediction_channels = self.latent_shape[0]
        if not kind.encoded:
            self.class_names = _class_names(
                read_settings(folder / MODEL_INDEX).get("id2label", {}), self.backbone.classes
            )
        self.scheduler_config = read_settings(folder / "scheduler" / "scheduler_config.json")
        if self.predicted_channels == 2 * self.prediction_channels or "variance_type" in self.scheduler_config:
            self.scheduler_config["variance_type"] = "fixed_small"
        self._tell_schedule_the_size()

    @property
    def predicted_channels(self) -> int:
        """Channels of the network's answer, kept or not."""
        return int(self.backbone.network.config.get("out_channels") or self.latent_shape[0])

    def keep_variance(self) -> None:
        """Predict, store and sample with the learned variance, which the network must have."""
        self.prediction_channels = self.predicted_channels
        self.scheduler_config["variance_type"] = "learned_range"

    def resize(self, pixels: int) -> None:
        """Make square images of another size than the network was trained on.

        Raises:
            InputError: the network takes no other size, or not this one.
        """
        step = 8 * self.autoencoder.factor
        if not self.backbone.any_size:
            raise InputError(
                f"base_model.resolution: a {self.backbone.class_name} has one size, {self.pixels}; drop it"
            )
        if pixels % step:
            raise InputError(f"base_model.resolution {pixels} is no multiple of {step}")
        self.latent_shape = (
            *self.latent_shape[:-2],
            pixels // self.autoencoder.factor,
            pixels // self.autoencoder.factor,
        )
        self._tell_schedule_the_size()

    def _tell_schedule_the_size(self) -> None:
        tokens = self.backbone.image_tokens(self.latent_shape)
        if self.scheduler_config.get("use_dynamic_shifting") and tokens is not None:
            self.scheduler_config[IMAGE_TOKENS] = tokens

    @property
    def network(self) -> nn.Module:
        """The denoising network itself."""
        module: nn.Module = self.backbone.network
        return module

    @property
    def pixels(self) -> int:
        """Pixels per side of an image."""
        return self.latent_shape[-1] * self.autoencoder.factor

    def predict(self, latents: Latents, timestep: PerRow, ask: Ask) -> Prediction:
        """The plain conditional prediction; the rest of the ask is ignored."""
        self.network_evaluations += latents.shape[0]
        return self.evaluate_network(latents, timestep, ask.condition)

    def evaluate_network(self, latents: Latents, timestep: PerRow, condition: Condition) -> Prediction:
        """Call the network once; what is not kept of its answer is cut off."""
        with self._precision():
            prediction: Tensor = self.backbone.call(latents, timestep, condition)
        return prediction[:, : self.prediction_channels]

    def _precision(self) -> AbstractContextManager[None]:
        """A network whose weights are finer than the model, as they are while it is trained, runs as the model does."""
        if self.backbone.dtype is self.dtype:
            return nullcontext()
        mixed: AbstractContextManager[None] = torch.autocast(self.device.type, self.dtype)
        return mixed

    def null_condition(self, batch: int, negative_prompt: str | None = None) -> Condition:
        """What means "no condition": the class after the last, or the stock pipeline's own "no prompt".

        Args:
            batch: rows.
            negative_prompt: stands for it where it is given; each is encoded once.
        """
        if negative_prompt not in self._nulls:
            self._nulls[negative_prompt] = self._null(negative_prompt)
        return self._nulls[negative_prompt].take(torch.zeros(batch, dtype=torch.int64, device=self.device))

    def _null(self, negative_prompt: str | None) -> Condition:
        if self.encoder is None:
            return self.class_condition([self.backbone.classes])
        return self.backbone.prompt_condition(self.encoder.encode_null(negative_prompt), self.pixels)

    def class_condition(self, labels: Sequence[int]) -> Condition:
        """The condition of class labels, one row each; only of models with classes."""
        return Condition(class_labels=torch.tensor(labels, device=self.device))

    def prompt_condition(self, prompts: Sequence[str]) -> Condition:
        """The condition of prompts, one row each, by the stock pipeline's `encode_prompt`."""
        if self.encoder is None:
            raise TypeError(f"a {self.backbone.class_name} takes classes, not prompts")
        parts = self.encoder.encode(prompts)
        return Condition.cat([self.backbone.prompt_condition(part, self.pixels) for part in parts])

    def cut_prompts(self, prompts: Sequence[str]) -> CutPrompts | None:
        """What the text encoders do not read of prompts; None where they read all of them whole."""
        return None if self.encoder is None else cut_prompts(self._folder, prompts)

    def decode(self, latents: Latents) -> Float[Tensor, "batch image_channels *sides"]:
        """Scaled latents to images in [-1, 1]."""
        return self.autoencoder.decode(latents)

    def encode(self, images: Float[Tensor, "batch image_channels *sides"]) -> Latents:
        """Images in [-1, 1] to scaled latents, see `Autoencoder.encode`."""
        return self.autoencoder.encode(images)

    @property
    def parameters(self) -> int:
        """Parameters of the network that its inputs can reach (rows of unused classes do not count)."""
        return self.backbone.reachable_parameters(len(self.class_names))

    @property
    def prediction_type(self) -> str:
        """What the network predicts: "epsilon", "v_prediction" or "flow"."""
        if is_flow_matching(self.scheduler_config):
            return "flow"
        return str(self.scheduler_config.get("prediction_type", "epsilon"))

    def network_digest(self) -> str:
        """Identity of the network as it runs: its weights, its precision, and what is kept of its answer."""
        parts = {"weights": self.fingerprint, "dtype": str(self.dtype), "channels": self.prediction_channels}
        return digest(parts)

    def pipeline_digest(self) -> str:
        """Identity of everything that shapes an image: network, precision, text encoders, decoder, scheduler, size."""
        scheduler = {key: _finite(value) for key, value in self.scheduler_config.items() if not key.startswith("_")}
        parts = {"network": self.network_digest(), "decoder": self.decoder_fingerprint, "scheduler": scheduler}
        if self.encoder:
            parts["prompts"] = self.encoder.fingerprint
        return digest({**parts, "predicts": self.prediction_type, "latent_shape": list(self.latent_shape)})


def _finite(value: Any) -> Any:
    """JSON has no infinity, which DPM-Solver's `lambda_min_clipped` is."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def _class_names(id2label: Mapping[str, str], table_rows: int) -> tuple[str, ...]:
    """First name of every class in label order; numbers where the pipeline names none."""
    if not all(label.isdigit() for label in id2label):
        raise InputError(f"{MODEL_INDEX}: id2label must map class numbers to names")
    classes = max(map(int, id2label)) + 1 if id2label else table_rows
    return tuple(id2label.get(str(label), str(label)).partition(",")[0] for label in range(classes))
