"""At most one row per image and step, or one line: in whatever pipeline an adapter acts."""

import copy
import inspect

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, LCMScheduler, StableDiffusionPipeline

import agd_core
from tests.agd_core.pipelines.stock import (
    STEPS,
    arguments,
    counted_rows,
    images,
    open_miniature,
    picture,
    quiet,
)
from tests.composition_parts import tiny_controlnet

PAG_OFF = {"pag_scale": 0}
CONTROL = {"control_image": picture(2)}
ALLOWED = {
    "AltDiffusionPipeline": ("tiny-sd", {}),
    "AltDiffusionImg2ImgPipeline": ("tiny-sd", {}),
    "StableDiffusionPAGPipeline": ("tiny-sd", PAG_OFF),
    "StableDiffusionPAGImg2ImgPipeline": ("tiny-sd", PAG_OFF),
    "StableDiffusionPAGInpaintPipeline": ("tiny-sd", PAG_OFF),
    "StableDiffusionControlNetPAGPipeline": ("tiny-sd", PAG_OFF),
    "LatentConsistencyModelPipeline": ("tiny-sd", {}),
    "LatentConsistencyModelImg2ImgPipeline": ("tiny-sd", {}),
    "StableDiffusionXLPAGPipeline": ("tiny-sdxl", PAG_OFF),
    "StableDiffusionXLPAGImg2ImgPipeline": ("tiny-sdxl", PAG_OFF),
    "StableDiffusionXLPAGInpaintPipeline": ("tiny-sdxl", PAG_OFF),
    "StableDiffusionXLControlNetPAGPipeline": ("tiny-sdxl", PAG_OFF),
}
"""Pipelines of diffusers, beside those of test_stock_pipelines.py, that are guided in one pass."""
REFUSED = {
    "StableDiffusionPanoramaPipeline": ("tiny-sd", {}),
    "StableDiffusionControlNetPAGInpaintPipeline": ("tiny-sd", PAG_OFF | CONTROL),
    "StableDiffusionSAGPipeline": ("tiny-sd", {}),
    "SemanticStableDiffusionPipeline": ("tiny-sd", {}),
    "StableDiffusionModelEditingPipeline": ("tiny-sd", {}),
    "StableDiffusionControlNetInpaintPipeline": ("tiny-sd", CONTROL),
    "StableDiffusionXLControlNetImg2ImgPipeline": ("tiny-sdxl", CONTROL),
    "StableDiffusionXLControlNetInpaintPipeline": ("tiny-sdxl", CONTROL),
    "StableDiffusionXLControlNetPAGImg2ImgPipeline": ("tiny-sdxl", PAG_OFF | CONTROL),
    "StableDiffusion3PAGPipeline": ("tiny-sd3", PAG_OFF),
    "StableDiffusion3PAGImg2ImgPipeline": ("tiny-sd3", PAG_OFF),
}
"""Those that are not, for they guide by themselves."""


@pytest.fixture(scope="module")
def miniatures():
    """A fresh copy of a miniature's pipeline by name, read once."""
    opened = {}

    def fresh(name):
        if name not in opened:
            opened[name] = open_miniature(name)
        return copy.deepcopy(opened[name])

    return fresh


def made(base, class_name):
    """A pipeline of this class from the parts of another, with what else it needs."""
    kind = getattr(diffusers, class_name)
    parameters = inspect.signature(kind.__init__).parameters
    parts = {name: part for name, part in base.components.items() if name in parameters}
    parts |= {name: None for name in ("feature_extractor", "image_encoder", "safety_checker") if name in parameters}
    parts |= {"requires_safety_checker": False} if "requires_safety_checker" in parameters else {}
    parts |= {"controlnet": tiny_controlnet(base.unet)} if "controlnet" in parameters else {}
    if hasattr(base, "unet"):
        scheduler = LCMScheduler if "Consistency" in class_name else DDIMScheduler
        parts["scheduler"] = scheduler.from_config(base.scheduler.config)
    return quiet(kind(**parts))


def drawn(pipe, more):
    taken = inspect.signature(type(pipe).__call__).parameters
    given = arguments(pipe) | {"guidance_scale": 7.5, "num_inference_steps": STEPS, "output_type": "latent"} | more
    return pipe(**{name: value for name, value in given.items() if name in taken}).images


@pytest.mark.parametrize("class_name", ALLOWED)
def test_a_pipeline_that_leaves_guidance_to_its_network_makes_one_row(class_name, miniatures, adapters):
    name, more = ALLOWED[class_name]
    pipe = made(miniatures(name), class_name)
    agd_core.load_adapter(pipe, adapters(name))
    with counted_rows(pipe) as rows:
        drawn(pipe, more)
    assert set(rows.values()) == {STEPS}


@pytest.mark.parametrize("class_name", REFUSED)
def test_a_pipeline_that_guides_by_itself_is_refused(class_name, miniatures, adapters):
    name, more = REFUSED[class_name]
    pipe = made(miniatures(name), class_name)
    agd_core.load_adapter(pipe, adapters(name))
    with pytest.raises(agd_core.InputError, match=rf"{class_name}\b.*set_enabled\(pipe, False\)") as refused:
        drawn(pipe, more)
    assert "\n" not in str(refused.value)
    agd_core.set_enabled(pipe, False)
    assert torch.isfinite(drawn(pipe, more)).all()


@pytest.mark.parametrize(
    ("class_name", "name"),
    [("LEditsPPPipelineStableDiffusion", "tiny-sd"), ("LEditsPPPipelineStableDiffusionXL", "tiny-sdxl")],
)
def test_a_pipeline_without_a_guidance_scale_takes_no_adapter(class_name, name, miniatures, adapters):
    pipe = made(miniatures(name), class_name)
    with pytest.raises(agd_core.InputError, match=rf"a {class_name}'s call takes no guidance_scale"):
        agd_core.load_adapter(pipe, adapters(name))
    assert not pipe.unet._forward_pre_hooks


class Loop(DiffusionPipeline):
    """A pipeline of somebody's own: so many copies of every row, so many passes a step."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    def __call__(self, copies=1, passes=1, guidance_scale=7.5):
        latents, prompt = torch.ones(2, 4, 8, 8), torch.ones(2 * copies, 77, 32)
        excess = torch.full((2 * copies,), guidance_scale - 1)
        width = self.unet.config.time_cond_proj_dim
        embedding = StableDiffusionPipeline.get_guidance_scale_embedding(self, excess, embedding_dim=width)
        for t in self.scheduler.timesteps:
            for _ in range(passes):
                noise = self.unet(torch.cat([latents] * copies), t, prompt, timestep_cond=embedding).sample
            latents = latents - 0.1 * noise[:2]
        return latents


class Unnamed(Loop):
    """One that calls its latents and its steps something else."""

    def __call__(self, guidance_scale=7.5):
        x, prompt = torch.ones(1, 4, 8, 8), torch.ones(1, 77, 32)
        return self.unet(x, 500, prompt, timestep_cond=torch.zeros(1, 8)).sample


@pytest.fixture
def loop(miniatures, adapters):
    pipe = miniatures("tiny-sd")
    agd_core.load_adapter(pipe, adapters("tiny-sd"))
    pipe.scheduler.set_timesteps(4)  # PNDM: one timestep comes twice
    return pipe


def test_more_rows_or_a_second_pass_of_any_class_are_refused(loop):
    pipe = Loop(loop.unet, loop.scheduler)
    with torch.no_grad():
        expected = pipe()
        with pytest.raises(agd_core.InputError, match="asks for 4 rows where its images are 2: it would guide twice"):
            pipe(copies=2)
        with pytest.raises(agd_core.InputError, match="asks for a second pass: it would guide twice"):
            pipe(passes=2)
        assert torch.equal(pipe(), expected), "a call that was refused leaves nothing behind"
        with pytest.raises(agd_core.InputError, match="does not say which it is at"):
            Unnamed(loop.unet, loop.scheduler)()


def test_a_modular_pipeline_is_named_and_guides_nothing_twice(miniatures, adapters):
    classic = miniatures("tiny-sdxl")
    modular = diffusers.StableDiffusionXLAutoBlocks().init_pipeline()
    modular.update_components(**{k: part for k, part in classic.components.items() if part is not None})
    with pytest.raises(agd_core.InputError, match=r"a StableDiffusionXLModularPipeline is a modular pipeline.*classic"):
        agd_core.load_adapter(modular, adapters("tiny-sdxl"))
    agd_core.load_adapter(classic, adapters("tiny-sdxl"))
    call = arguments(classic) | {"num_inference_steps": STEPS, "output_type": "latent", "output": "images"}
    with pytest.raises(
        agd_core.InputError, match="part of a modular pipeline, whose guider guides by passes of its own"
    ):
        modular(**call)
    agd_core.set_enabled(modular, False)
    with counted_rows(classic) as rows:
        modular(**call)
    assert set(rows.values()) == {2 * STEPS}


def test_what_a_pipeline_makes_of_a_default_is_said(miniatures, adapters):
    pipe = made(miniatures("tiny-sd"), "StableDiffusionPAGPipeline")
    agd_core.load_adapter(pipe, adapters("tiny-sd"))
    for given in ({}, {"pag_scale": 2.0}):
        with pytest.raises(agd_core.InputError, match=r"pag_scale has no effect on adapter .*: give pag_scale=0;"):
            drawn(pipe, given)
    with pytest.raises(agd_core.InputError, match=r"guidance_rescale has no effect on adapter .*: drop it;"):
        images(miniature_with(adapters, miniatures), guidance_rescale=0.7)


def miniature_with(adapters, miniatures):
    pipe = miniatures("tiny-sd")
    agd_core.load_adapter(pipe, adapters("tiny-sd"))
    return pipe
