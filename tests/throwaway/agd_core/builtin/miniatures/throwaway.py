"""Latents `[4, 4, 4]`, images of 32 px, three classes."""

import json

from agd_core.builtin.miniatures.parts import vae
from agd_core.builtin.miniatures.weights import fill, untouched_random_state


def write_throwaway(folder):
    from diffusers import DDIMScheduler, UNet2DModel

    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    channels = {"in_channels": 4, "out_channels": 4, "sample_size": 4, "num_class_embeds": 4}
    with untouched_random_state():
        fill(UNet2DModel(**blocks, **sizes, **channels), "throwaway/unet").save_pretrained(folder / "unet")
        vae("throwaway", 4, sample_size=32).save_pretrained(folder / "vae")
    DDIMScheduler(clip_sample=False).save_pretrained(folder / "scheduler")
    parts = {"unet": "UNet2DModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}
    index = {"_class_name": "ThrowawayPipeline"} | {name: ["diffusers", kind] for name, kind in parts.items()}
    (folder / "model_index.json").write_text(json.dumps(index))
