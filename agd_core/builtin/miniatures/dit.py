"""The miniature of a class-conditional DiT with learned variance, facebook/DiT-XL-2-256 in small."""

import json
from pathlib import Path

from agd_core.builtin.miniatures.parts import vae
from agd_core.builtin.miniatures.weights import fill, untouched_random_state

CLASSES = 1000
"""DiTPipeline takes class 1000 for the null class, whatever the model says."""


def write_dit(folder: Path) -> None:
    """Latents `[4, 8, 8]`, images of 64 px, four blocks of width 48, 1000 classes, epsilon beside its variance."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    with untouched_random_state():
        transformer = DiTTransformer2DModel(
            num_attention_heads=4,
            attention_head_dim=12,
            in_channels=4,
            out_channels=8,
            num_layers=4,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=CLASSES,
        )
        gains = {"class_embedder.embedding_table.weight": 0.25}
        pipeline = DiTPipeline(
            transformer=fill(transformer, "tiny-dit/transformer", gains),
            vae=vae("tiny-dit", 4, sample_size=64, scaling_factor=0.18215),
            scheduler=DDIMScheduler(clip_sample=False),
        )
        pipeline.save_pretrained(folder, safe_serialization=True)
    _name_classes(folder / "model_index.json")


def _name_classes(index: Path) -> None:
    """The pipeline reads its labels from this file and does not write them."""
    labels = {str(label): f"class {label}" for label in range(CLASSES)}
    content = {**json.loads(index.read_text(encoding="utf-8")), "id2label": labels}
    index.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
