"""A stock pipeline and what users hang on it, made in code: ControlNet, IP-Adapter, LoRA, a fine-tuned sibling."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from diffusers import ControlNetModel, DiffusionPipeline, DiTPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from agd_core.basics.seeding import generator
from agd_core.builtin.miniatures.weights import fill, untouched_random_state

PROMPT = "a photograph of an astronaut riding a horse"
IP_SUBFOLDER = "models"
IP_WEIGHTS = "ip-adapter_tiny.safetensors"
IMAGE_WIDTH = 24
"""Width of an image embedding that the tiny IP-Adapter takes."""
LORA_RANK = 4
_IP_TOKENS = 4
_LORA_TARGETS = (".to_q", ".to_k", ".to_v", ".to_out.0")
_NETWORK_FOLDERS = ("unet", "transformer")


def load_stock(folder: Path) -> Any:
    """The folder's own diffusers pipeline on the CPU, without a progress bar."""
    pipe = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def network(pipe: Any) -> Any:
    """The pipeline's UNet or transformer."""
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def draw(pipe: Any, condition: str | int | None = None, scale: float = 1.0, **more: Any) -> np.ndarray:
    """`[1, pixels, pixels, 3]` in 0..1 after four steps from seed 0, by the pipeline's own call; scale 1 is unguided.

    Args:
        condition: a prompt, for DiT a class; PROMPT or class 3 where None.
        more: further arguments of the call, which win.
    """
    is_dit = isinstance(pipe, DiTPipeline)
    what = {"class_labels": [3 if condition is None else condition]} if is_dit else {"prompt": condition or PROMPT}
    seeded = torch.Generator().manual_seed(0)
    settings = {"num_inference_steps": 4, "guidance_scale": scale, "generator": seeded, "output_type": "np"}
    images: np.ndarray = pipe(**{**what, **settings, **more}).images
    return images


def share(difference: Any, whole: Any) -> float:
    """Norm of a difference over the norm of the whole."""
    return float(np.linalg.norm(np.asarray(difference)) / np.linalg.norm(np.asarray(whole)))


def tiny_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet of a plain UNet's own shape that moves its output; its hint is as large as the image, in 0..1."""
    with untouched_random_state():
        controlnet = ControlNetModel.from_unet(unet)
    fill(controlnet.controlnet_cond_embedding, "controlnet/hint", {"weight": 1.8})
    for number, block in enumerate([*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block]):
        fill(block, f"controlnet/{number}", {"weight": 0.3})
    return controlnet.eval()


def ip_adapter_state(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Keys of an IP-Adapter file: four image tokens and a key and value matrix per cross-attention (1, 3, 5, ...)."""
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    attentions = [unet.get_submodule(name.removesuffix(".processor")) for name in names]
    width = attentions[0].to_k.in_features
    state = {
        "image_proj.proj.weight": _matrix(_IP_TOKENS * width, IMAGE_WIDTH, "ip/proj"),
        "image_proj.proj.bias": torch.zeros(_IP_TOKENS * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    for number, attention in enumerate(attentions):
        for kind in ("to_k_ip", "to_v_ip"):
            key = f"ip_adapter.{2 * number + 1}.{kind}.weight"
            state[key] = _matrix(attention.to_k.out_features, width, key)
    return state


def write_ip_adapter(folder: Path, unet: UNet2DConditionModel) -> None:
    """Read by `pipe.load_ip_adapter(folder, IP_SUBFOLDER, IP_WEIGHTS, image_encoder_folder=None)`."""
    (folder / IP_SUBFOLDER).mkdir(parents=True, exist_ok=True)
    save_file(ip_adapter_state(unet), folder / IP_SUBFOLDER / IP_WEIGHTS)


def ip_image_embeds(guided: bool, number: int = 0) -> list[Tensor]:
    """For `ip_adapter_image_embeds=`: `[1, 1, IMAGE_WIDTH]`, below zeros for the unconditional half where guided."""
    image = torch.randn(1, 1, IMAGE_WIDTH, generator=generator("ip/image", number))
    return [torch.cat([torch.zeros_like(image), image]) if guided else image]


def write_lora(folder: Path, network: nn.Module, strength: float = 0.5) -> None:
    """A peft LoRA on to_q, to_k, to_v and to_out of every attention; read by `pipe.load_lora_weights(folder)`.

    Works for the UNets and SD3's transformer. DiTPipeline loads no LoRA; `inject_lora` puts it into the transformer.
    """
    prefix = "unet" if isinstance(network, UNet2DConditionModel) else "transformer"
    state = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and name.endswith(_LORA_TARGETS):
            state[f"{prefix}.{name}.lora_A.weight"] = _matrix(LORA_RANK, layer.in_features, f"lora/A/{name}")
            state[f"{prefix}.{name}.lora_B.weight"] = strength * _matrix(
                layer.out_features, LORA_RANK, f"lora/B/{name}"
            )
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "pytorch_lora_weights.safetensors", metadata={"format": "pt"})


def inject_lora(network: nn.Module, folder: Path) -> None:
    """What `write_lora` wrote, put into a network whose pipeline has no LoRA loader (DiT)."""
    state = load_file(folder / "pytorch_lora_weights.safetensors")
    own = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    targets = sorted({name.rsplit(".lora_", 1)[0] for name in own})
    config = peft.LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=targets)
    peft.inject_adapter_in_model(config, network)
    result: Any = peft.set_peft_model_state_dict(network, own)
    assert not result.unexpected_keys


def fine_tuned(folder_in: Path, folder_out: Path, strength: float = 0.05) -> Path:
    """A copy of a pipeline folder whose network's weights are moved by `strength` of their own spread."""
    shutil.copytree(folder_in, folder_out)
    network = next(folder_out / name for name in _NETWORK_FOLDERS if (folder_out / name).is_dir())
    path = network / "diffusion_pytorch_model.safetensors"
    moved = {name: _moved(name, tensor, strength) for name, tensor in load_file(path).items()}
    save_file(moved, path, metadata={"format": "pt"})
    return folder_out


def _moved(name: str, tensor: Tensor, strength: float) -> Tensor:
    noise = torch.randn(tensor.shape, generator=generator("fine-tuned", name))
    spread = float(tensor.square().mean().sqrt())
    return tensor + noise.mul(strength * spread)


def _matrix(rows: int, columns: int, *seed: str) -> Tensor:
    return torch.randn(rows, columns, generator=generator(*seed)) / math.sqrt(columns)
