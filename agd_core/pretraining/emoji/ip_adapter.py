"""An IP-Adapter for the emoji world's base: https://arxiv.org/abs/2308.06721, section 3.2, in diffusers' classes.

The base is frozen. Each of its cross-attentions gets a second key and value matrix, for four tokens that are made of
the image prompt's embedding. The paper takes CLIP for the embedding; here its encoder is small and trained with the
adapter, by the same loss and by how well a linear map, which is thrown away, tells the picture's latents from it.
"""

from collections.abc import Sequence
from typing import Any

from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.embeddings import ImageProjection
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from agd_core.pretraining.emoji.recipe import FineTuningRecipe
from agd_core.pretraining.emoji.rendering import SIDE

ENCODER, PROJECTION, ATTENTIONS, TOLD = "image_encoder", "image_proj", "ip_adapter", "told_latents"
_TOKENS = 4
"""As in the paper; diffusers knows a file of this kind by it."""
_HEAD = 32


class IpAdapterRecipe(FineTuningRecipe):
    """How the IP-Adapter is trained: image prompts are the pictures themselves, a little moved."""

    name: str = "emoji-sd-ip-adapter"
    learning_rate: float = 1e-3
    """The image encoder begins with random weights."""
    caption_dropout: float = 0.25
    image_dropout: float = 0.1
    """Part of the image prompts whose embedding is zeros, as stock pipelines say "none"; drawn apart from captions.
    The paper drops each for itself and both at once in 5 % of a thousand times as many steps."""
    latents_weight: float = 1.0
    """Of the mean squared error of the latents that the embedding tells."""
    shift_pixels: int = 4
    patch: int = 8
    image_width: int = 128
    image_layers: int = 4
    features: int = 192


def build_ip_adapter(base: StableDiffusionPipeline, recipe: IpAdapterRecipe) -> nn.ModuleDict:
    """Put an untrained IP-Adapter into a frozen base, by its own loader; what is to be trained, by name.

    Args:
        base: gets an image encoder, an image processor, and processors in its cross-attentions.
        recipe: widths and depths.
    """
    unet, text_width = base.unet, base.unet.config.cross_attention_dim
    encoder = _image_encoder(recipe).to(base.device)
    base.register_modules(image_encoder=encoder)
    first = [(attention.to_k.weight, attention.to_v.weight) for attention in cross_attentions(unet)]
    base.load_ip_adapter(adapter_state(ImageProjection(recipe.features, text_width, _TOKENS), first), "", "")
    latent_values = unet.config.in_channels * unet.config.sample_size**2
    parts = {
        ENCODER: encoder,
        PROJECTION: unet.encoder_hid_proj.image_projection_layers[0],
        ATTENTIONS: nn.ModuleList(attention.processor for attention in cross_attentions(unet)),
        TOLD: nn.Linear(recipe.features, latent_values).to(base.device),
    }
    return nn.ModuleDict(parts).requires_grad_(True)


def _image_encoder(recipe: IpAdapterRecipe) -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=recipe.image_width,
        intermediate_size=4 * recipe.image_width,
        num_hidden_layers=recipe.image_layers,
        num_attention_heads=recipe.image_width // _HEAD,
        image_size=SIDE,
        patch_size=recipe.patch,
        projection_dim=recipe.features,
    )
    return CLIPVisionModelWithProjection(config)


def cross_attentions(unet: UNet2DConditionModel) -> list[Any]:
    """The UNet's cross-attentions in the order in which diffusers numbers those of an IP-Adapter."""
    names = [name.removesuffix(".processor") for name in unet.attn_processors]
    return [unet.get_submodule(name) for name in names if name.endswith("attn2")]


def adapter_state(
    projection: nn.Module, matrices: Sequence[tuple[Tensor, Tensor]]
) -> dict[str, dict[str, Float[Tensor, "..."]]]:
    """Copies of an adapter's tensors, as its authors' files name them: two groups, cross-attentions by odd numbers.

    Args:
        projection: makes tokens of an embedding.
        matrices: key and value matrix of every cross-attention.
    """
    image = {name.replace("image_embeds", "proj"): tensor.clone() for name, tensor in projection.state_dict().items()}
    attentions = {
        f"{2 * number + 1}.{name}.weight": matrix.detach().clone()
        for number, pair in enumerate(matrices)
        for name, matrix in zip(("to_k_ip", "to_v_ip"), pair, strict=True)
    }
    return {PROJECTION: image, ATTENTIONS: attentions}


def stored_state(adapter: nn.ModuleDict) -> dict[str, Tensor]:
    """The adapter as one float16 file, without its image encoder."""
    matrices = [(each.to_k_ip[0].weight, each.to_v_ip[0].weight) for each in adapter[ATTENTIONS]]  # type: ignore[attr-defined]
    groups = adapter_state(adapter[PROJECTION], matrices)
    return {f"{group}.{name}": tensor.half() for group, own in groups.items() for name, tensor in own.items()}
