"""The IP-Adapter: it begins with the text's matrices, is trained alone, and knows a dropped image prompt."""

import pytest
import torch
from torch import nn

from agd_core.basics.checkpoint import Checkpoint
from agd_core.pretraining.ema import Ema
from agd_core.pretraining.emoji.denoiser import UNET, build_denoiser
from agd_core.pretraining.emoji.frozen_base import examples_of, load_frozen
from agd_core.pretraining.emoji.image_prompts import ImagePrompts, ip_adapter_loop
from agd_core.pretraining.emoji.ip_adapter import (
    ATTENTIONS,
    ENCODER,
    PROJECTION,
    TOLD,
    build_ip_adapter,
    cross_attentions,
    stored_state,
)
from agd_core.pretraining.emoji.recipe import RECIPES
from agd_core.pretraining.emoji.relative_recipes import IP_ADAPTERS
from tests.emoji_base import write_emoji_base
from tests.emoji_pictures import emoji_pictures, tiny_ip_adapter_recipe
from tests.emoji_sizes import LargestTokenizer

MOST_BYTES = 4e6
HALF_PRECISION_BYTES = 2


@pytest.fixture
def base(tmp_path):
    return load_frozen(write_emoji_base(tmp_path), torch.device("cpu"))


def test_it_begins_with_the_texts_matrices(base):
    names = [name for name in base.unet.attn_processors if name.endswith("attn2.processor")]
    texts = [base.unet.get_submodule(name.removesuffix(".processor")) for name in names]
    stored = stored_state(build_ip_adapter(base, tiny_ip_adapter_recipe()))
    for number, attention in enumerate(texts):
        assert stored[f"ip_adapter.{2 * number + 1}.to_k_ip.weight"].equal(attention.to_k.weight.half())
        assert stored[f"ip_adapter.{2 * number + 1}.to_v_ip.weight"].equal(attention.to_v.weight.half())
    assert len(stored) == 2 * len(texts) + 4


def test_training_moves_every_part_and_nothing_of_the_base(base, tmp_path):
    pictures, recipe = emoji_pictures(), tiny_ip_adapter_recipe(steps=40, learning_rate=1e-2)
    before = {name: tensor.clone() for name, tensor in base.unet.state_dict().items()}
    examples = examples_of(base, pictures)
    torch.manual_seed(0)
    adapter = build_ip_adapter(base, recipe)
    first = {name: tensor.detach().clone() for name, tensor in adapter.named_parameters()}
    prompts = ImagePrompts(adapter, pictures.pixels, recipe, torch.device("cpu"))
    losses = ip_adapter_loop(Ema(adapter, 0.9), base, prompts, examples, Checkpoint(tmp_path / "c", "")).run()
    assert sum(losses[-10:]) < sum(losses[:10])
    after = base.unet.state_dict()
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    moved = {name.partition(".")[0] for name, tensor in adapter.named_parameters() if not tensor.equal(first[name])}
    assert moved == {ENCODER, PROJECTION, ATTENTIONS, TOLD}


def test_what_is_trained_is_what_the_unet_uses(base):
    adapter = build_ip_adapter(base, tiny_ip_adapter_recipe())
    own = {parameter.data_ptr() for parameter in adapter.parameters() if parameter.requires_grad}
    trained = {parameter.data_ptr() for parameter in base.unet.parameters() if parameter.requires_grad}
    assert trained < own
    assert len(trained) == 4 + 2 * len(cross_attentions(base.unet))


def test_a_dropped_image_prompt_is_zeros_and_pictures_move_by_step(base):
    pictures, recipe = emoji_pictures(), tiny_ip_adapter_recipe()
    adapter = build_ip_adapter(base, recipe)
    prompts = ImagePrompts(adapter, pictures.pixels, recipe, torch.device("cpu"))
    rows = torch.zeros(200, dtype=torch.long)
    with torch.no_grad():
        kept = prompts.embedded(rows, 3, 0.25).any(dim=1)
        assert 120 < int(kept.sum()) < 180
        assert prompts.embedded(rows[:2], 3, 0.0).equal(prompts.embedded(rows[:2], 3, 0.0))
        assert not prompts.embedded(rows[:2], 3, 0.0).equal(prompts.embedded(rows[:2], 4, 0.0))


@pytest.mark.parametrize("size", RECIPES)
def test_in_half_precision_it_has_at_most_4_megabytes(size, base):
    shape = (RECIPES[size].vae.latent_channels, 16, 16)
    base.register_modules(unet=build_denoiser(RECIPES[size].denoiser, shape, LargestTokenizer())[UNET])
    adapter = build_ip_adapter(base, IP_ADAPTERS[size])
    shipped: list[nn.Module] = [adapter[name] for name in (ENCODER, PROJECTION, ATTENTIONS)]
    parameters = sum(parameter.numel() for part in shipped for parameter in part.parameters())
    assert parameters * HALF_PRECISION_BYTES < MOST_BYTES
