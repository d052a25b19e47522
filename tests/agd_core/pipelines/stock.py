"""The stock pipelines that adapters must work in, from miniatures, and adapters made for them."""

from contextlib import contextmanager

import diffusers
import torch

from agd_core.basics.seeding import generator
from agd_core.builtin.miniatures import miniature_folder
from agd_core.methods import CrossAttentionConfig
from agd_core.methods.adapter_files import AdapterCard, save_adapter
from agd_core.models.backbones import backbone_of
from tests.composition_parts import tiny_controlnet

STEPS, PIXELS = 2, 64
RANGE = (1.0, 10.0)
PIPELINES = {
    "sd": ("tiny-sd", "StableDiffusionPipeline"),
    "sd-v": ("tiny-sd-v", "StableDiffusionPipeline"),
    "sd-img2img": ("tiny-sd", "StableDiffusionImg2ImgPipeline"),
    "sd-inpaint": ("tiny-sd", "StableDiffusionInpaintPipeline"),
    "sd-controlnet": ("tiny-sd", "StableDiffusionControlNetPipeline"),
    "sdxl": ("tiny-sdxl", "StableDiffusionXLPipeline"),
    "sdxl-img2img": ("tiny-sdxl", "StableDiffusionXLImg2ImgPipeline"),
    "sdxl-inpaint": ("tiny-sdxl", "StableDiffusionXLInpaintPipeline"),
    "sdxl-controlnet": ("tiny-sdxl", "StableDiffusionXLControlNetPipeline"),
    "dit": ("tiny-dit", "DiTPipeline"),
    "pixart": ("tiny-pixart", "PixArtSigmaPipeline"),
    "sd3": ("tiny-sd3", "StableDiffusion3Pipeline"),
    "sd3-img2img": ("tiny-sd3", "StableDiffusion3Img2ImgPipeline"),
    "sd3-inpaint": ("tiny-sd3", "StableDiffusion3InpaintPipeline"),
}
PREDICTIONS = {"tiny-sd-v": "v_prediction", "tiny-sd3": "flow"}
CFG = {"kind": "cfg"}
CONFIG = CrossAttentionConfig(hidden_width=16)


def network_of(pipe):
    return getattr(pipe, "unet", None) or pipe.transformer


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def open_miniature(name):
    return quiet(diffusers.DiffusionPipeline.from_pretrained(miniature_folder(name)))


def as_kind(pipe, class_name):
    """A pipeline of another class around the same network."""
    extra = {}
    if "ControlNet" in class_name:
        extra = {"controlnet": tiny_controlnet(open_miniature("tiny-sdxl" if "XL" in class_name else "tiny-sd").unet)}
    kind = getattr(diffusers, class_name)
    return pipe if type(pipe) is kind else quiet(kind.from_pipe(pipe, **extra))


def open_pipeline(case):
    name, class_name = PIPELINES[case]
    return as_kind(open_miniature(name), class_name)


def picture(number=0):
    return torch.rand(1, 3, PIXELS, PIXELS, generator=generator("stock/picture", number))


def arguments(pipe, prompts=("a red cat",)):
    """What this class is called with beside guidance."""
    kind = type(pipe).__name__
    if kind == "DiTPipeline":
        return {"class_labels": [prompt.count("e") for prompt in prompts]}
    chosen = {"prompt": list(prompts)}
    if "Img2Img" in kind:
        return chosen | {"image": picture(), "strength": 1.0}
    chosen |= {"height": PIXELS, "width": PIXELS}
    if "Inpaint" in kind:
        return chosen | {"image": picture(), "mask_image": (picture(1)[:, :1] > 0.5).float(), "strength": 1.0}
    return chosen | ({"image": picture()} if "ControlNet" in kind else {})


def images(pipe, guidance_scale=7.5, seeds=(0,), **more):
    given = arguments(pipe) | {"num_inference_steps": STEPS, "output_type": "pt"} | more
    draws = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe(guidance_scale=guidance_scale, generator=draws, **given).images


@contextmanager
def counted_rows(pipe):
    """Rows through the first layers of the network and of a ControlNet, while the block runs."""
    entries = [m for n in ("unet", "transformer", "controlnet") if (m := getattr(pipe, n, None)) is not None]
    rows, count = {}, lambda module, args, output: rows.update({module: rows.get(module, 0) + output.shape[0]})
    firsts = [getattr(entry, "conv_in", None) or entry.pos_embed for entry in entries]
    handles = [first.register_forward_hook(count) for first in firsts]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def new_adapter(network, trained, config=CONFIG):
    adapter = config.build(backbone_of(network))
    if trained:
        with torch.no_grad():
            for name, parameter in adapter.named_parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator("stock/adapter", name)))
    return adapter


def card_of(adapter, network, prediction="epsilon", guidance_range=RANGE, guidance=CFG):
    kind = type(network).__name__
    said = ("the miniature", "f" * 64, guidance, guidance_range, "d" * 64)
    return AdapterCard(*said, adapter.parameter_count(), prediction, kind)


def write_adapter(folder, miniature, trained=True, config=CONFIG, guidance_range=RANGE, guidance=CFG):
    """An adapter of a miniature; untrained it adds nothing."""
    network = network_of(open_miniature(miniature))
    adapter = new_adapter(network, trained, config)
    card = card_of(adapter, network, PREDICTIONS.get(miniature, "epsilon"), guidance_range, guidance)
    save_adapter(adapter, card, network, folder)
    return folder
