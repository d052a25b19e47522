"""Everything that an adapter cannot do, or that does not belong together, is refused with one clear line."""

import json
import shutil

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

import agd_core
from agd_core.builtin.miniatures import miniature_folder
from tests.agd_core.pipelines.stock import (
    as_kind,
    images,
    open_miniature,
    open_pipeline,
    picture,
    quiet,
    write_adapter,
)
from tests.composition_parts import fine_tuned, write_lora


def refused(call, *words):
    """One line that says all of these."""
    with pytest.raises(agd_core.InputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message


@pytest.fixture
def loaded(adapters):
    pipe = open_miniature("tiny-sd")
    agd_core.load_adapter(pipe, adapters("tiny-sd"), "mine")
    return pipe


@pytest.fixture
def folder(adapters, tmp_path):
    """A copy of an adapter's folder, to be spoilt."""
    return shutil.copytree(adapters("tiny-sd"), tmp_path / "spoilt")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"negative_prompt": ["ugly"]}, ["negative_prompt has no effect"]),
        ({"negative_prompt_embeds": torch.zeros(1, 77, 32)}, ["negative_prompt_embeds has no effect"]),
        ({"guidance_rescale": 0.7}, ["guidance_rescale has no effect"]),
        ({"guidance_scale": 10.5}, ["guidance_scale 10.5 is outside the range 1 to 10", "'mine'"]),
    ],
)
def test_what_an_adapter_cannot_give_is_not_dropped(loaded, asked, words):
    stock = open_miniature("tiny-sd")
    refused(lambda: images(loaded, **asked), "StableDiffusionPipeline", "agd_core.set_enabled(pipe, False)", *words)
    agd_core.set_enabled(loaded, False)
    assert torch.allclose(images(loaded, **asked), images(stock, **asked), atol=1e-5)


def test_arguments_given_by_position_are_seen_too(loaded):
    draws = torch.Generator().manual_seed(0)
    refused(lambda: loaded("a cat", 64, 64, 2, None, None, 7.5, "ugly", generator=draws), "negative_prompt")


@pytest.mark.parametrize("asked", [{"negative_prompt": ""}, {"negative_prompt": [""]}, {"negative_prompt": None}])
def test_an_empty_negative_prompt_is_what_the_adapter_has_learnt(loaded, asked):
    assert torch.equal(images(loaded, **asked), images(loaded))


def test_sd3_has_more_that_cannot_be_given(adapters):
    pipe = open_miniature("tiny-sd3")
    agd_core.load_adapter(pipe, adapters("tiny-sd3"))
    for asked in ({"negative_prompt_3": "ugly"}, {"skip_guidance_layers": [1]}):
        refused(lambda asked=asked: images(pipe, **asked), f"{next(iter(asked))} has no effect")
    assert torch.isfinite(images(pipe)).all(), "its own empty negative prompt is none of the user's"


def test_sdxl_has_negative_sizes_and_pipelines_of_its_own(adapters):
    pipe = open_miniature("tiny-sdxl")
    agd_core.load_adapter(pipe, adapters("tiny-sdxl"))
    refused(lambda: images(pipe, negative_original_size=(32, 32)), "negative_original_size has no effect")


def test_guess_mode_guides_by_leaving_the_controlnet_out_of_one_half(loaded):
    pipe = as_kind(loaded, "StableDiffusionControlNetPipeline")
    refused(lambda: images(pipe, guess_mode=True), "guess_mode has no effect")


def test_a_pipeline_that_hands_over_no_guidance_is_named(loaded):
    pipe = as_kind(loaded, "StableDiffusionControlNetImg2ImgPipeline")
    control = {"control_image": picture(2)}
    refused(lambda: images(pipe, **control), "StableDiffusionControlNetImg2ImgPipeline", "hands its UNet no guidance")
    agd_core.set_enabled(pipe, False)
    assert torch.isfinite(images(pipe, **control)).all()


def test_things_that_are_no_pipeline_or_have_no_known_network(adapters):
    folder = adapters("tiny-sd")
    refused(lambda: agd_core.load_adapter(object(), folder), "object", "diffusers")
    vae = open_miniature("tiny-sd").vae
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    network = diffusers.FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=8,
        pooled_projection_dim=8,
        in_channels=4,
        axes_dims_rope=(4, 4, 8),
    )
    empty = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    flux = diffusers.FluxPipeline(scheduler=scheduler, vae=vae, transformer=network, **empty)
    refused(lambda: agd_core.load_adapter(flux, folder), "FluxTransformer2DModel", "known: ")
    ddpm = diffusers.DDPMPipeline(unet=diffusers.UNet2DModel(sample_size=8), scheduler=diffusers.DDPMScheduler())
    refused(lambda: agd_core.load_adapter(ddpm, folder), "UNet2DModel")


def test_another_family_another_architecture_another_prediction(adapters):
    refused(
        lambda: agd_core.load_adapter(open_miniature("tiny-sdxl"), adapters("tiny-sd")),
        "was trained on the miniature",
        "parameters",
    )
    refused(lambda: agd_core.load_adapter(open_miniature("tiny-sd"), adapters("tiny-sd-v")), "prediction type v_pred")
    refused(lambda: agd_core.load_adapter(open_miniature("tiny-sd3"), adapters("tiny-dit")), "prediction type epsilon")
    dit = open_miniature("tiny-dit")
    refused(
        lambda: agd_core.load_adapter(dit, adapters("tiny-sd")), "a UNet2DConditionModel", "a DiTTransformer2DModel"
    )


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-dit", "tiny-sd3"])
def test_a_fine_tune_is_refused_until_it_is_called_a_sibling(name, adapters, tmp_path):
    sibling = quiet(diffusers.DiffusionPipeline.from_pretrained(fine_tuned(miniature_folder(name), tmp_path / "tuned")))
    unguided = images(sibling, 1.0)
    refused(lambda: agd_core.load_adapter(sibling, adapters(name)), "other values", "e.g. ", "allow_sibling=True")
    agd_core.load_adapter(sibling, adapters(name), allow_sibling=True)
    assert (images(sibling) - unguided).abs().max() > 1e-3


def test_a_fused_lora_makes_a_sibling_and_a_loaded_one_does_not(adapters, tmp_path):
    pipe = open_miniature("tiny-sd")
    write_lora(tmp_path, pipe.unet)
    pipe.load_lora_weights(tmp_path)
    agd_core.load_adapter(pipe, adapters("tiny-sd"), "first")
    pipe.fuse_lora()
    refused(lambda: agd_core.load_adapter(pipe, adapters("tiny-sd"), "second"), "other values", "attn")


def test_an_inpainting_unet_is_a_sibling_with_more_input_channels(adapters):
    pipe = open_pipeline("sd-inpaint")
    settings = dict(pipe.unet.config) | {"in_channels": 9}
    unet = diffusers.UNet2DConditionModel.from_config(settings)
    state = {name: value for name, value in pipe.unet.state_dict().items() if name != "conv_in.weight"}
    unet.load_state_dict(state, strict=False)
    pipe = diffusers.StableDiffusionInpaintPipeline(**pipe.components | {"unet": unet}, requires_safety_checker=False)
    refused(lambda: agd_core.load_adapter(quiet(pipe), adapters("tiny-sd")), "1 of ", "another shape", "conv_in.weight")
    agd_core.load_adapter(pipe, adapters("tiny-sd"), allow_sibling=True)
    assert torch.isfinite(images(pipe)).all()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("adapter.json", None, ["holds no readable adapter"]),
        ("adapter.json", b"{", ["holds no readable adapter"]),
        ("adapter.safetensors", None, ["does not hold this adapter's weights"]),
        ("adapter.safetensors", b"torn", ["does not hold this adapter's weights"]),
        ("base_sketch.safetensors", None, ["does not hold a base sketch"]),
        ("base_sketch.safetensors", b"torn", ["does not hold a base sketch"]),
    ],
)
def test_half_a_folder(folder, file, content, words):
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    pipe = open_miniature("tiny-sd")
    refused(lambda: agd_core.load_adapter(pipe, folder), *words)
    assert not pipe.unet._forward_pre_hooks


def test_weights_of_another_adapter_and_a_folder_of_another_format(folder):
    weights = load_file(folder / "adapter.safetensors")
    weights.popitem()
    save_file(weights, folder / "adapter.safetensors")
    pipe = open_miniature("tiny-sd")
    refused(lambda: agd_core.load_adapter(pipe, folder), "does not hold this adapter's weights")
    said = json.loads((folder / "adapter.json").read_text())
    (folder / "adapter.json").write_text(json.dumps(said | {"format_version": 1}))
    refused(lambda: agd_core.load_adapter(pipe, folder), "format 1", "train it again")


def test_names(loaded, adapters):
    refused(lambda: agd_core.load_adapter(loaded, adapters("tiny-sd"), "mine"), "'mine' is loaded already")
    refused(lambda: agd_core.set_active(loaded, "other"), "no adapter 'other'", "loaded: mine")
    refused(lambda: agd_core.unload(loaded, "other"), "no adapter 'other'", "loaded: mine")
    agd_core.unload(loaded)
    for call in (lambda: agd_core.unload(loaded), lambda: agd_core.set_enabled(loaded, True)):
        refused(call, "no adapter is loaded into this pipeline")


def test_a_network_that_takes_a_guidance_embedding_itself(adapters):
    pipe = open_miniature("tiny-sd")
    settings = dict(pipe.unet.config) | {"time_cond_proj_dim": 32}
    unet = diffusers.UNet2DConditionModel.from_config(settings)
    unet.load_state_dict(pipe.unet.state_dict(), strict=False)
    distilled = quiet(
        diffusers.StableDiffusionPipeline(**pipe.components | {"unet": unet}, requires_safety_checker=False)
    )
    refused(lambda: agd_core.load_adapter(distilled, adapters("tiny-sd")), "guidance-distilled already")
    assert not unet._forward_pre_hooks
    assert unet.config.time_cond_proj_dim == 32


def test_image_embeddings_that_were_made_for_cfg(adapters, tmp_path):
    from tests.composition_parts import IP_SUBFOLDER, IP_WEIGHTS, ip_image_embeds, write_ip_adapter

    pipe = open_miniature("tiny-sd")
    write_ip_adapter(tmp_path, pipe.unet)
    pipe.load_ip_adapter(tmp_path, IP_SUBFOLDER, IP_WEIGHTS, image_encoder_folder=None)
    agd_core.load_adapter(pipe, adapters("tiny-sd"))
    doubled = ip_image_embeds(guided=True)
    refused(lambda: images(pipe, ip_adapter_image_embeds=doubled), "ip_adapter_image_embeds", "conditional")


def test_a_narrow_range_is_kept_to(tmp_path):
    folder = write_adapter(tmp_path / "narrow", "tiny-sd", guidance_range=(3.0, 5.0))
    pipe = open_miniature("tiny-sd")
    agd_core.load_adapter(pipe, folder)
    refused(lambda: images(pipe, 2.0), "guidance_scale 2 is outside the range 3 to 5")
    assert torch.isfinite(images(pipe, 1.0)).all()
    assert torch.isfinite(images(pipe, 5.0)).all()


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sdxl"])
def test_an_adapter_that_has_learnt_to_rescale_takes_that_and_no_other(name, tmp_path):
    folder = write_adapter(tmp_path / "rescaled", name, guidance={"kind": "cfg", "rescale": 0.7})
    pipe = open_miniature(name)
    agd_core.load_adapter(pipe, folder)
    assert torch.equal(images(pipe, guidance_rescale=0.7), images(pipe))
    for other in (0.0, 0.5):
        refused(lambda other=other: images(pipe, guidance_rescale=other), "has learnt guidance_rescale=0.7: give that")


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sdxl", "tiny-sd3", "tiny-pixart"])
def test_an_adapter_that_has_learnt_a_negative_prompt_takes_that_and_no_other(name, tmp_path):
    folder = write_adapter(tmp_path / "negative", name, guidance={"kind": "cfg", "negative_prompt": "ugly"})
    pipe = open_miniature(name)
    agd_core.load_adapter(pipe, folder)
    expected = images(pipe)
    for same in (["ugly"], None)[: 1 if name == "tiny-pixart" else 2]:  # PixArt's own pipeline takes no None
        assert torch.equal(images(pipe, negative_prompt=same), expected)
    for other in ("", "blurry", ["blurry"]):
        words = ["negative_prompt has no effect", "has learnt negative_prompt='ugly': give that or drop it"]
        refused(lambda other=other: images(pipe, negative_prompt=other), *words, "set_enabled(pipe, False)")
    if name in ("tiny-sdxl", "tiny-sd3"):
        assert torch.equal(images(pipe, negative_prompt_2=["ugly"]), expected)
        refused(lambda: images(pipe, negative_prompt_2="blurry"), "negative_prompt_2 has no effect")


def test_sdxl_tells_an_empty_negative_prompt_from_none(adapters):
    """No negative prompt is zeros there, and the adapter has learnt that; an empty one is encoded."""
    pipe = open_miniature("tiny-sdxl")
    without, empty = images(pipe), images(pipe, negative_prompt="")
    assert not torch.allclose(without, empty, atol=1e-4)
    agd_core.load_adapter(pipe, adapters("tiny-sdxl"))
    refused(lambda: images(pipe, negative_prompt=""), "negative_prompt has no effect")


@pytest.mark.parametrize("asked", [{"negative_prompt": "ugly"}, {"guidance_rescale": 0.7}, {"guidance_scale": 10.5}])
def test_a_subclass_with_a_call_of_its_own_hides_nothing(loaded, asked):
    class Mine(diffusers.StableDiffusionPipeline):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    pipe = quiet(Mine(**loaded.components, requires_safety_checker=False))
    expected = images(loaded)
    assert torch.equal(images(pipe), expected)
    refused(lambda: images(pipe, **asked), next(iter(asked)))


def test_another_prediction_type_after_loading_is_refused(loaded):
    loaded.scheduler = diffusers.DDIMScheduler.from_config(loaded.scheduler.config, prediction_type="v_prediction")
    refused(lambda: images(loaded), "its scheduler expects v_prediction", "trained for epsilon")
    agd_core.set_enabled(loaded, False)
    assert torch.isfinite(images(loaded)).all()


def test_without_an_active_adapter_there_is_nothing_to_enable(loaded, adapters):
    agd_core.load_adapter(loaded, adapters("tiny-sd", trained=False), "other")
    agd_core.unload(loaded, "other")
    refused(lambda: agd_core.set_enabled(loaded, True), "no adapter is active", "mine")
    agd_core.set_active(loaded, "mine")
    assert not torch.equal(images(loaded), images(loaded, 1.0))


def test_a_changed_configuration_is_named_and_can_be_mended(loaded):
    expected = images(loaded)
    loaded.unet.register_to_config(note="x")
    refused(lambda: images(loaded), "hands its UNet no guidance embedding", "set_enabled(pipe, True)")
    agd_core.set_enabled(loaded, True)
    assert torch.equal(images(loaded), expected)
