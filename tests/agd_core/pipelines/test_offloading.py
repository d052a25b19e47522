"""Networks whose weights are not in their memory are recognised all the same, in both orders."""

import diffusers
import pytest
import torch
from accelerate import disk_offload

import agd_core
from agd_core.builtin.miniatures import miniature_folder
from tests.agd_core.pipelines.stock import images, network_of, open_miniature
from tests.composition_parts import fine_tuned

CPU = torch.device("cpu")


def group_offloaded(pipe, folder, **how):
    network_of(pipe).enable_group_offload(
        onload_device=CPU, offload_device=CPU, offload_to_disk_path=str(folder), **how
    )


def accelerated(pipe, folder):
    disk_offload(network_of(pipe), str(folder), execution_device=CPU)


FORMS = {
    "leaves": lambda pipe, folder: group_offloaded(pipe, folder, offload_type="leaf_level"),
    "blocks": lambda pipe, folder: group_offloaded(pipe, folder, offload_type="block_level", num_blocks_per_group=1),
    "accelerate": accelerated,
}


@pytest.mark.parametrize(("name", "form"), [("tiny-sd", "leaves"), *(("tiny-sd3", form) for form in FORMS)])
def test_weights_on_disk_are_the_base_and_are_guided(name, form, adapters, tmp_path):
    plain, before, after = (open_miniature(name) for _ in range(3))
    agd_core.load_adapter(plain, adapters(name))
    expected = images(plain)
    FORMS[form](before, tmp_path / "before")
    agd_core.load_adapter(before, adapters(name))
    assert torch.allclose(images(before), expected, atol=1e-5)
    agd_core.load_adapter(after, adapters(name))
    FORMS[form](after, tmp_path / "after")
    assert torch.allclose(images(after), expected, atol=1e-5)


def test_a_fine_tune_on_disk_is_still_a_fine_tune(adapters, tmp_path):
    pipe = diffusers.DiffusionPipeline.from_pretrained(fine_tuned(miniature_folder("tiny-sd"), tmp_path / "tuned"))
    FORMS["leaves"](pipe, tmp_path / "offloaded")
    with pytest.raises(agd_core.InputError, match="have other values here"):
        agd_core.load_adapter(pipe, adapters("tiny-sd"))


def test_lost_files_and_lost_weights_are_one_line(adapters, tmp_path):
    pipe = open_miniature("tiny-sd")
    FORMS["leaves"](pipe, tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(b"torn")
    with pytest.raises(agd_core.InputError, match=r"cannot read back the offloaded weights: .*group_\w+\.safetensors"):
        agd_core.load_adapter(pipe, adapters("tiny-sd"))
    empty = open_miniature("tiny-sd")
    empty.unet.to("meta")
    with pytest.raises(agd_core.InputError, match="is on the meta device: it holds no weights"):
        agd_core.load_adapter(empty, adapters("tiny-sd"))
