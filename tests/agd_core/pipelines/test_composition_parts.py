import diffusers
import numpy as np
import pytest
import torch

from agd_core.basics.digest import file_digest
from agd_core.builtin.miniatures import MINIATURES, write_miniature
from tests.composition_parts import (
    IP_SUBFOLDER,
    IP_WEIGHTS,
    draw,
    fine_tuned,
    inject_lora,
    ip_image_embeds,
    load_stock,
    network,
    share,
    tiny_controlnet,
    write_ip_adapter,
    write_lora,
)

TEXT = tuple(name for name in MINIATURES if name != "tiny-dit")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("miniatures")
    for name in MINIATURES:
        write_miniature(name, root / name)
    return {name: root / name for name in MINIATURES}


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sdxl"])
def test_a_tiny_controlnet_changes_the_image(name, folders):
    plain = load_stock(folders[name])
    kinds = {
        "tiny-sd": diffusers.StableDiffusionControlNetPipeline,
        "tiny-sdxl": diffusers.StableDiffusionXLControlNetPipeline,
    }
    pipe = kinds[name](**{**plain.components, "controlnet": tiny_controlnet(plain.unet)}, **quiet_settings(name))
    pipe.set_progress_bar_config(disable=True)
    images = {}
    for number in (0, 1):
        hint = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(number))
        images[number] = draw(pipe, image=hint, scale=5.0)
        assert np.isfinite(images[number]).all()
    expected = draw(plain, scale=5.0)
    assert share(images[0] - expected, expected) > 0.02
    assert share(images[1] - images[0], images[0]) > 0.02
    assert np.array_equal(draw(pipe, image=hint, scale=5.0, controlnet_conditioning_scale=0.0), expected)


def quiet_settings(name):
    return {"requires_safety_checker": False} if name == "tiny-sd" else {"add_watermarker": False}


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sdxl"])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_a_tiny_ip_adapter_changes_the_image(name, scale, folders, tmp_path):
    pipe = load_stock(folders[name])
    plain = draw(pipe, scale=scale)
    write_ip_adapter(tmp_path, pipe.unet)
    pipe.load_ip_adapter(tmp_path, subfolder=IP_SUBFOLDER, weight_name=IP_WEIGHTS, image_encoder_folder=None)
    first, second = (draw(pipe, scale=scale, ip_adapter_image_embeds=ip_image_embeds(scale > 1, n)) for n in (0, 1))
    assert np.isfinite(first).all()
    assert share(first - plain, plain) > 0.02
    assert share(first - second, second) > 0.005
    pipe.unload_ip_adapter()
    assert np.array_equal(draw(pipe, scale=scale), plain)


@pytest.mark.parametrize("name", [name for name in TEXT if name != "tiny-pixart"])  # its pipeline has no loader
def test_a_lora_on_every_attention_changes_the_image(name, folders, tmp_path):
    pipe = load_stock(folders[name])
    plain = draw(pipe)
    write_lora(tmp_path, network(pipe))
    attentions = sum(path.endswith((".to_q", ".to_k", ".to_v", ".to_out.0")) for path, _ in modules(pipe))
    pipe.load_lora_weights(tmp_path)
    assert sum(path.endswith(".lora_B") for path, _ in modules(pipe)) == attentions > 0
    assert share(draw(pipe) - plain, plain) > 0.02
    pipe.unload_lora_weights()
    assert np.array_equal(draw(pipe), plain)


def modules(pipe):
    return list(network(pipe).named_modules())


def test_a_lora_is_injected_where_the_pipeline_has_no_loader(folders, tmp_path):
    pipe = load_stock(folders["tiny-dit"])
    plain = draw(pipe)
    write_lora(tmp_path, pipe.transformer)
    inject_lora(pipe.transformer, tmp_path)
    assert share(draw(pipe) - plain, plain) > 0.02


@pytest.mark.parametrize("name", MINIATURES)
def test_a_fine_tuned_sibling_draws_another_but_similar_image(name, folders, tmp_path):
    sibling = load_stock(fine_tuned(folders[name], tmp_path / "sibling"))
    plain = draw(load_stock(folders[name]))
    assert 0.01 < share(draw(sibling) - plain, plain) < 0.5
    files = [path.relative_to(folders[name]) for path in folders[name].rglob("*") if path.is_file()]
    moved = [path for path in files if file_digest(folders[name] / path) != file_digest(tmp_path / "sibling" / path)]
    assert [path.parent.name for path in moved] == ["unet" if hasattr(sibling, "unet") else "transformer"]
