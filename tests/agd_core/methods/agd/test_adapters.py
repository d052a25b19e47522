"""What is special about AGD's adapters, on the real built-in teacher and on full-size models without weights."""

import pytest
import torch

from agd_core.methods import CrossAttentionConfig, ModulatedMlpConfig, OffsetConfig
from agd_core.methods.agd.base import Adapter
from agd_core.methods.agd.cross_attention import _positions
from agd_core.methods.agd.encoders import FourierFeatures
from agd_core.methods.agd.layers import Codes
from agd_core.methods.attached import GuidedCall
from agd_core.models.ask import Ask
from agd_core.models.backbones import AdapterSite
from tests.agd_core.methods.examples import call_of, randomised

KINDS = [
    CrossAttentionConfig(hidden_width=16),
    CrossAttentionConfig(hidden_width=16, encoder="shared", scale_output=True),
    OffsetConfig(hidden_width=16),
    OffsetConfig(hidden_width=16, encoder="shared", scale_output=True, use_timestep=False),
    ModulatedMlpConfig(hidden_width=16, bottleneck_width=8),
    ModulatedMlpConfig(hidden_width=16, bottleneck_width=8, encoder="per-layer", use_condition=False),
]
each_kind = pytest.mark.parametrize("config", KINDS, ids=lambda c: f"{c.kind}-{c.encoder}-{c.scale_output}")


@each_kind
@torch.no_grad()
def test_it_acts_and_with_scaled_output_it_is_the_base_at_scale_one(config, teacher):
    latents, timestep, ask = call_of(teacher)
    bare = teacher.predict(latents, timestep, ask)
    with randomised(config.build(teacher.backbone)).installed(teacher) as student:
        assert not torch.allclose(student.predict(latents, timestep, ask), bare, atol=1e-3)
        unguided = student.predict(latents, timestep, Ask.unguided(ask.condition))
    assert torch.equal(unguided, bare) == config.scale_output


@each_kind
def test_gradients_reach_every_weight(config, teacher):
    adapter = randomised(config.build(teacher.backbone))
    with adapter.installed(teacher) as student:
        student.predict(*call_of(teacher)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.parameters())


# docs: methods reference 1.5, counted on the authors' own classes: DiT-XL/2 has 28 blocks of width 1152.
DIT_XL_SITES = tuple(AdapterSite(f"transformer_blocks.{i}.attn1", 1152) for i in range(28))


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (CrossAttentionConfig(hidden_width=256, use_timestep=False, use_condition=False), 34_947_584),
        (CrossAttentionConfig(hidden_width=256, use_condition=False), 43_212_288),
        (CrossAttentionConfig(hidden_width=256), 51_476_992),
        (CrossAttentionConfig(hidden_width=128), 21_167_104),
        (OffsetConfig(use_timestep=False, use_condition=False), 24_933_888),
        (OffsetConfig(use_condition=False), 33_198_592),
        (OffsetConfig(), 41_463_296),
        (OffsetConfig(hidden_width=128), 16_619_008),
    ],
)
def test_parameter_counts_are_those_of_the_authors(config, parameters):
    with torch.device("meta"):
        assert Adapter(config, DIT_XL_SITES, (1152, 1152)).parameter_count() == parameters


def test_the_scale_code_is_smooth():
    """The authors' default multiplier of 1000 turns the code into a hash; ours stays close for close scales."""
    torch.manual_seed(0)
    features = FourierFeatures(256, 1.0)
    near, nearer = features(torch.tensor([2.0, 2.001]))
    assert torch.nn.functional.cosine_similarity(near, nearer, dim=0) > 0.999


@pytest.mark.parametrize("tokens", [1, 77, 335])
def test_cross_attention_takes_prompts_of_any_length(tokens):
    adapter = Adapter(CrossAttentionConfig(hidden_width=8), [AdapterSite("x", 12)], (6, 10))
    torch.nn.init.ones_(adapter.layers[0].out.weight)
    codes = adapter.encoders[0](torch.tensor([2.0]), torch.randn(1, 6), torch.randn(1, tokens, 10))
    assert codes.tokens().shape == (1, 2 + tokens, 8)
    layer = adapter.layers[0]
    hidden_states = torch.randn(1, 4, 12)
    assert torch.isfinite(layer.add(hidden_states, hidden_states, layer.prepare(codes, torch.ones(1)))).all()


def randomised_layer(config):
    """A layer of width 12, what enters its module, three rows of codes, and weights of the rows."""
    adapter = randomised(Adapter(config, [AdapterSite("x", 12)], (6, 10)))
    codes = adapter.encoders[0](torch.tensor([2.0, 3.0, 5.0]), torch.randn(3, 6), torch.randn(3, 4, 10))
    return adapter.layers[0], torch.randn(3, 7, 12), codes, torch.tensor([0.5, 1.0, 2.0])


@torch.no_grad()
def test_cross_attention_is_the_papers_though_its_projections_are_folded():
    """softmax(q k' / sqrt(H)) v with one head, then the projection: arXiv 2503.07274."""
    layer, hidden, codes, weight = randomised_layer(CrossAttentionConfig(hidden_width=8))
    tokens = codes.tokens() + _positions(6, 8, hidden.device)
    query, key, value = layer.query(hidden), layer.key(tokens), layer.value(tokens)
    attention = (query @ key.transpose(1, 2) / 8**0.5).softmax(dim=-1)
    expected = hidden + weight[:, None, None] * layer.out(attention @ value)
    assert torch.allclose(layer.add(hidden, hidden, layer.prepare(codes, weight)), expected, atol=1e-5)


@pytest.mark.parametrize("rows", [3, 1])
@torch.no_grad()
def test_the_modulated_mlp_is_a_bottleneck_with_scale_and_shift_though_its_bias_is_a_channel(rows):
    layer, hidden, codes, weight = randomised_layer(ModulatedMlpConfig(hidden_width=8, bottleneck_width=5))
    hidden, weight = hidden[:rows], weight[:rows]
    codes = Codes(*(part[:rows] for part in (codes.scale, codes.time, codes.condition)))
    pooled = codes.scale[:, 0] + codes.time[:, 0] + codes.condition.mean(dim=1)
    scale, shift = layer.modulation(torch.nn.functional.silu(pooled))[:, None].chunk(2, dim=-1)
    inner = torch.nn.functional.silu(layer.down(hidden) * (1 + scale) + shift)
    expected = hidden + weight[:, None, None] * layer.up(inner)
    assert torch.allclose(layer.add(hidden, hidden, layer.prepare(codes, weight)), expected, atol=1e-5)


def guided_call(teacher):
    return GuidedCall(teacher.backbone, torch.zeros(1), call_of(teacher)[2][1:2])


def test_a_joint_attention_gets_the_offset_on_its_image_stream_only(teacher):
    class JointAttention(torch.nn.Module):
        def forward(self, hidden_states, encoder_hidden_states):
            return hidden_states, encoder_hidden_states

    network = torch.nn.ModuleDict({"attn": JointAttention()})
    adapter = Adapter(OffsetConfig(hidden_width=4), [AdapterSite("attn", 6)], teacher.backbone.embedding_widths)
    torch.nn.init.ones_(adapter.layers[0].net[-1].bias)
    image, text = torch.zeros(1, 3, 6, dtype=torch.bfloat16), torch.zeros(1, 2, 6)
    with adapter.attach(network).during(guided_call(teacher)):
        image_out, text_out = network["attn"](hidden_states=image, encoder_hidden_states=text)
    assert image_out.dtype == torch.bfloat16
    assert torch.equal(image_out, torch.ones_like(image))
    assert torch.equal(text_out, text)


@each_kind
@pytest.mark.parametrize("space", [(3, 5), (1, 1), (2, 3, 5)], ids=["image", "pixel", "video"])
def test_a_feature_map_gets_at_every_place_what_a_row_of_tokens_gets(config, space, teacher):
    """Maps `[batch, width, *space]`, as a UNet's blocks have them, against the same values as tokens."""
    network = torch.nn.ModuleDict({"map": torch.nn.Identity(), "tokens": torch.nn.Identity()})
    sites = [AdapterSite("map", 6, "map"), AdapterSite("tokens", 6)]
    adapter = randomised(Adapter(config, sites, teacher.backbone.embedding_widths))
    adapter.layers[1].load_state_dict(adapter.layers[0].state_dict())
    adapter.encoders[-1].load_state_dict(adapter.encoders[0].state_dict())
    maps = torch.randn(1, 6, *space, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), adapter.attach(network).during(guided_call(teacher)):
        moved, tokens = network["map"](maps), network["tokens"](maps.flatten(2).transpose(1, 2))
    assert moved.shape == maps.shape
    assert not torch.allclose(moved, maps, atol=1e-3)
    assert torch.equal(moved.flatten(2).transpose(1, 2), tokens)
