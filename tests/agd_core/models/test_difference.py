"""A fine-tuned model as its difference: applied in memory and as a folder, refused where it does not belong."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel

from agd_core.basics.errors import InputError
from agd_core.models.difference import DESCRIPTION, apply_difference, write_difference, write_fine_tuned

CHANGED = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"


@pytest.fixture
def base(tmp_path):
    """A folder with a float16 UNet."""
    return write_base(tmp_path / "base", 0)


def write_base(folder, seed):
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=8,
    )
    unet.half().save_pretrained(folder / "unet")
    return folder


@pytest.fixture
def difference(base, tmp_path):
    tensors = {CHANGED: load(base).state_dict()[CHANGED] + 1}
    write_difference(tensors, base, {"learnt": "one layer"}, tmp_path / "difference")
    return tmp_path / "difference"


def load(folder):
    return UNet2DConditionModel.from_pretrained(folder / "unet")


def test_only_its_tensors_differ_in_memory_and_in_the_folder(base, difference, tmp_path):
    unet, before = load(base), load(base).state_dict()
    apply_difference(unet, difference, base)
    write_fine_tuned(difference, base, tmp_path / "tuned")
    stored = load(tmp_path / "tuned").state_dict()
    assert {name for name, value in stored.items() if not value.equal(before[name])} == {CHANGED}
    assert all(value.equal(stored[name]) for name, value in unet.state_dict().items())


def test_another_base_is_refused(difference, tmp_path):
    other = write_base(tmp_path / "other", 1)
    with pytest.raises(InputError, match="belongs to base"):
        apply_difference(load(other), difference, other)
    with pytest.raises(InputError, match="belongs to base"):
        write_fine_tuned(difference, other, tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()


def test_it_says_what_it_is(difference):
    told = json.loads((difference / DESCRIPTION).read_text())
    assert told["learnt"] == "one layer"
    assert len(told["base_fingerprint"]) == 64


@pytest.mark.parametrize("tensors", [{"nothing.weight": torch.zeros(2)}, {CHANGED: torch.zeros(2)}])
def test_tensors_that_fit_no_place_are_refused(base, tmp_path, tensors):
    write_difference(tensors, base, {}, tmp_path / "wrong")
    with pytest.raises(InputError, match="is no tensor of the base"):
        apply_difference(load(base), tmp_path / "wrong", base)


def test_the_folder_credits_whom_the_fine_tuned_model_learnt_from(base, difference, tmp_path):
    (base / "ATTRIBUTION.md").write_text("six styles")
    (difference / "ATTRIBUTION.md").write_text("seven styles")
    write_fine_tuned(difference, base, tmp_path / "tuned")
    assert (tmp_path / "tuned" / "ATTRIBUTION.md").read_text() == "seven styles"
