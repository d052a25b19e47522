"""Callbacks that change the call on its way: an image, or one line."""

import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback, SDXLCFGCutoffCallback

import agd_core
from tests.agd_core.pipelines.stock import images, open_miniature

TENSORS = {
    "tiny-sd": ["prompt_embeds"],
    "tiny-sdxl": ["prompt_embeds", "add_text_embeds", "add_time_ids"],
    "tiny-sd3": ["prompt_embeds", "pooled_prompt_embeds"],
}


@pytest.fixture(params=TENSORS)
def name(request):
    return request.param


@pytest.fixture
def pipe(name, adapters):
    opened = open_miniature(name)
    agd_core.load_adapter(opened, adapters(name))
    return opened


def called_back(pipe, name, callback, prompts=1, **more):
    return images(
        pipe,
        prompt=["a red cat", "the sea"][:prompts],
        seeds=range(prompts),
        num_inference_steps=4,
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["latents", *TENSORS[name]],
        **more,
    )


def off_after_the_first_step(pipe, step, timestep, given):
    """Dynamic CFG as diffusers' documentation has it: the conditional half, and no guidance from here on."""
    if step == 0:
        given |= {name: given[name].chunk(2)[-1] for name in given if name != "latents"}
        pipe._guidance_scale = 0.0
    return given


@pytest.mark.parametrize("prompts", [1, 2])
def test_dynamic_cfg_gives_an_image_or_one_line(pipe, name, prompts):
    if name == "tiny-sd3" or prompts == 1:
        assert torch.isfinite(called_back(pipe, name, off_after_the_first_step, prompts)).all()
        return
    with pytest.raises(agd_core.InputError, match=r"1 rows of .* for 2 of latents.*no unconditional half") as refused:
        called_back(pipe, name, off_after_the_first_step, prompts)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "kind"), [("tiny-sd", SDCFGCutoffCallback), ("tiny-sdxl", SDXLCFGCutoffCallback)])
def test_diffusers_own_cutoff_leaves_the_adapter_out_from_there_on(pipe, name, kind):
    cut = called_back(pipe, name, kind(cutoff_step_ratio=None, cutoff_step_index=1))
    assert not torch.equal(cut, called_back(pipe, name, lambda pipe, step, timestep, given: given))


@pytest.mark.parametrize("scale", [3.0, 1.0])
def test_another_guidance_scale_on_the_way_is_followed(pipe, name, scale):
    def change(pipe, step, timestep, given):
        pipe._guidance_scale = scale
        return given

    if (
        name == "tiny-sd3" and scale == 1.0
    ):  # its latents are no longer doubled, and the callback left the rest as it was
        with pytest.raises(
            agd_core.InputError, match=r"2 rows of .* for 1 of latents.*must leave as many rows of both"
        ):
            called_back(pipe, name, change)
        return
    assert not torch.equal(called_back(pipe, name, change), called_back(pipe, name, lambda *call: call[-1]))


def test_a_scale_outside_the_range_and_other_latents_are_one_line(pipe, name):
    def too_much(pipe, step, timestep, given):
        pipe._guidance_scale = 50.0
        return given

    def more_latents(pipe, step, timestep, given):
        return {"latents": given["latents"].repeat(3, 1, 1, 1)}

    with pytest.raises(agd_core.InputError, match="guidance_scale 50 is outside the range"):
        called_back(pipe, name, too_much)
    with pytest.raises(agd_core.InputError, match=r"rows of .* of latents"):
        called_back(pipe, name, more_latents)


def test_an_interrupted_call_ends_early(pipe, name):
    def interrupt(pipe, step, timestep, given):
        pipe._interrupt = True
        return given

    stopped = called_back(pipe, name, interrupt)
    assert torch.isfinite(stopped).all()
    assert not torch.equal(stopped, called_back(pipe, name, lambda *call: call[-1]))
