"""The built-in teacher as a stock diffusers folder, and our guided loop against diffusers' own pipeline."""

import numpy as np
import pytest
import torch
from diffusers import DiTPipeline

from agd_core.basics.errors import InputError
from agd_core.basics.seeding import generator
from agd_core.builtin.fashion_mnist import CLASS_NAMES
from agd_core.builtin.shipped import BUILTIN_FOLDER
from agd_core.data.subjects import Subjects
from agd_core.guidance import ClassifierFreeGuidance, GuidedDenoiser
from agd_core.models.config import BaseModelConfig
from agd_core.models.denoising import denoise
from agd_core.models.schedulers import build_scheduler

MAX_SHIPPED_BYTES = 80_000_000


@pytest.fixture(scope="module")
def pipeline():
    pipe = DiTPipeline.from_pretrained(BUILTIN_FOLDER / "fashion-dit")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_what_is_shipped_is_small_and_holds_no_pickle():
    code = {".py", ".pyc"}
    files = [path for path in BUILTIN_FOLDER.rglob("*") if path.is_file() and path.suffix not in code]
    assert sum(path.stat().st_size for path in files) <= MAX_SHIPPED_BYTES
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ".txt"}


def test_the_stock_pipeline_knows_the_classes(pipeline):
    assert pipeline.get_label_ids(["T-shirt", "Ankle boot"]) == [0, 9]


def test_the_stock_pipeline_samples_with_guidance(pipeline):
    images = pipeline([1, 8], guidance_scale=2.0, num_inference_steps=10, generator=torch.manual_seed(0)).images
    assert [image.size for image in images] == [(32, 32), (32, 32)]
    assert all(np.asarray(image).std() > 20 for image in images)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_our_loop_equals_the_stock_pipeline(pipeline, teacher, scale):
    seeds, labels = [5, 6], [0, 7]
    ours = denoise(
        GuidedDenoiser(teacher, ClassifierFreeGuidance()),
        build_scheduler("ddim", teacher.scheduler_config, 8),
        Subjects(teacher).ask(labels, scale),
        seeds,
        teacher.latent_shape,
    )
    generators = [generator(seed, "noise") for seed in seeds]
    stock = pipeline(labels, guidance_scale=scale, num_inference_steps=8, generator=generators, output_type="pt").images
    decoded = (teacher.decode(ours) / 2 + 0.5).permute(0, 2, 3, 1).numpy()
    assert np.abs(decoded - np.asarray(stock).reshape(decoded.shape)).max() < 1e-5


def test_class_names_come_from_the_folder(teacher):
    assert teacher.class_names == CLASS_NAMES


def test_unused_label_rows_do_not_count_as_parameters(teacher):
    total = sum(p.numel() for p in teacher.network.parameters())
    assert teacher.parameters == total - 990 * 128 * 6


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "builtin:nothing",
            "unknown built-in model 'nothing'; known: fashion-dit, emoji-sd, emoji-sd-style, ",
        ),
        ("/no/such/folder", "folder /no/such/folder does not exist"),
        ("justaword", "folder justaword does not exist"),
    ],
)
def test_a_source_that_is_not_there_is_one_clear_line(source, message):
    with pytest.raises(InputError, match=message) as caught:
        BaseModelConfig(source=source).build(torch.device("cpu"))
    assert "\n" not in str(caught.value)


def test_a_local_dit_with_learned_variance_works(tmp_path):
    """A miniature with facebook/DiT-XL-2-256's layout: 8 output channels, no class names. Random weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=8
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=16, latent_channels=4)
    DiTPipeline(transformer, vae, DDIMScheduler()).save_pretrained(tmp_path)
    model = BaseModelConfig(source=str(tmp_path)).build(torch.device("cpu"))
    assert len(model.class_names) == 1000
    assert [site.path for site in model.backbone.sites] == ["transformer_blocks.0.attn1", "transformer_blocks.1.attn1"]
    arguments = torch.randn(2, 4, 8, 8), torch.full((2,), 10.0), Subjects(model).ask([0, 999], 1.0)
    assert model.predict(*arguments).shape == (2, 4, 8, 8)
    assert model.fingerprint != BaseModelConfig().build(torch.device("cpu")).fingerprint
