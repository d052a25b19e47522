"""LoRA, IP-Adapter, ControlNet and AGD adapter: the order of loading changes no bit."""

import itertools

import pytest
import torch

import agd_core
from tests.agd_core.pipelines.stock import PIPELINES, as_kind, counted_rows, images, open_miniature
from tests.composition_parts import (
    IP_SUBFOLDER,
    IP_WEIGHTS,
    inject_lora,
    ip_image_embeds,
    write_ip_adapter,
    write_lora,
)
from tests.soak import short


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Folder of LoRAs and IP-Adapters by miniature."""
    root = tmp_path_factory.mktemp("parts")
    for name in ("tiny-sd", "tiny-sdxl", "tiny-sd3", "tiny-dit"):
        pipe = open_miniature(name)
        write_lora(root / name / "lora", getattr(pipe, "unet", None) or pipe.transformer)
        if hasattr(pipe, "unet"):
            write_ip_adapter(root / name / "ip", pipe.unet)
    return root


def load(pipe, part, name, adapters, parts):
    if part == "agd":
        agd_core.load_adapter(pipe, adapters(name), allow_sibling=True)
    elif part == "ip":
        pipe.load_ip_adapter(parts / name / "ip", IP_SUBFOLDER, IP_WEIGHTS, image_encoder_folder=None)
    elif name == "tiny-dit":
        inject_lora(pipe.transformer, parts / name / "lora")
    else:
        pipe.load_lora_weights(parts / name / "lora")
    if part == "fused":
        pipe.fuse_lora()
    return pipe


def composed(order, name, adapters, parts, controlnet_at=None):
    """The pipeline and its images; a ControlNet joins before the part of this number."""
    pipe = open_miniature(name)
    for number, part in enumerate((*order, None)):
        if number == controlnet_at:
            kind = next(kind for miniature, kind in PIPELINES.values() if miniature == name and "ControlNet" in kind)
            pipe = as_kind(pipe, kind)
        if part:
            load(pipe, part, name, adapters, parts)
    given = {"ip_adapter_image_embeds": ip_image_embeds(guided="agd" not in order)} if "ip" in order else {}
    return pipe, given


ORDERS = [
    ("tiny-sd", ("agd", "lora")),
    ("tiny-sd", ("agd", "fused")),
    ("tiny-sd", ("agd", "lora", "ip")),
    ("tiny-sdxl", ("agd", "ip")),
    ("tiny-sd3", ("agd", "lora")),
    ("tiny-dit", ("agd", "lora")),
]


@pytest.mark.parametrize(("name", "together"), short(ORDERS, keep=(0, 3), several=True))
def test_every_order_gives_the_same_bits(name, together, adapters, parts):
    orders = list(itertools.permutations(together))
    found = []
    for order in orders:
        pipe, given = composed(order, name, adapters, parts)
        with counted_rows(pipe) as rows:
            found.append(images(pipe, **given))
        assert set(rows.values()) == {len(pipe.scheduler.timesteps)}
    assert all(torch.allclose(each, found[0], atol=1e-5) for each in found), orders


@pytest.mark.parametrize("part", ["lora", "ip"])
def test_the_part_acts_and_switching_the_adapter_off_leaves_it_there(part, adapters, parts):
    pipe, given = composed(("agd", part), "tiny-sd", adapters, parts)
    with_part = images(pipe, **given)
    agd_core.set_enabled(pipe, False)
    plain, guided = composed((part,), "tiny-sd", adapters, parts)
    assert torch.allclose(images(pipe, **guided), images(plain, **guided), atol=1e-5)
    alone, _ = composed(("agd",), "tiny-sd", adapters, parts)
    assert (images(alone) - with_part).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sdxl"])
def test_a_controlnet_joins_at_any_time(name, adapters, parts):
    found = []
    for position in range(3):
        pipe, given = composed(("agd", "ip"), name, adapters, parts, controlnet_at=position)
        found.append(images(pipe, **given))
    assert all(torch.allclose(each, found[0], atol=1e-5) for each in found)
