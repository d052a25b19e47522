"""Every scale is read back from what diffusers' pipelines compute, in every precision."""

import diffusers
import pytest
import torch

import agd_core
from agd_core.models.doors.guidance_embedding import WIDTH, decode
from tests.agd_core.pipelines.stock import open_miniature

SCALES = torch.linspace(0, 30, 30_001)


@pytest.mark.parametrize(
    "kind", ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusionControlNetPipeline"]
)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 4e-6), (torch.float16, 2e-5), (torch.bfloat16, 2e-5)])
def test_the_scale_comes_back(kind, dtype, error):
    embed = getattr(diffusers, kind).get_guidance_scale_embedding
    embedding = embed(None, SCALES - 1, embedding_dim=WIDTH).to(dtype)
    assert (decode(embedding) - SCALES).abs().max() < error


def test_a_loop_that_is_no_pipeline_guides_by_the_embedding(adapters):
    """Rows of a batch may have scales of their own; at 1 or less they are the plain network's."""
    pipe = open_miniature("tiny-sd")
    call = {"encoder_hidden_states": torch.ones(3, 77, 32), "return_dict": False}
    latents, scales = torch.ones(3, 4, 8, 8), torch.tensor([0.0, 1.0, 7.5])
    with torch.no_grad():
        plain = pipe.unet(latents, 500, **call)[0]
        agd_core.load_adapter(pipe, adapters("tiny-sd"))
        embedding = pipe.get_guidance_scale_embedding(scales - 1, embedding_dim=pipe.unet.config.time_cond_proj_dim)
        guided = pipe.unet(latents, 500, timestep_cond=embedding, **call)[0]
        assert torch.equal(pipe.unet(latents, 500, **call)[0], plain)
    assert torch.equal(guided[0], plain[0])
    assert torch.allclose(guided[1], plain[1], atol=1e-4)
    assert not torch.allclose(guided[2], plain[2], atol=1e-2)
