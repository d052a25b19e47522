"""The contract of every adapter kind, on the real built-in teacher and on full-size models without weights."""

import pytest
import torch
from pydantic import TypeAdapter

from agd_core.adapters import Adapter, AnyAdapterConfig, CrossAttentionConfig, ModulatedMlpConfig, OffsetConfig
from agd_core.adapters.base import AdapterSite
from agd_core.adapters.encoders import FourierFeatures
from agd_core.ask import Ask
from agd_core.student import Student

KINDS = [
    CrossAttentionConfig(hidden_width=16),
    CrossAttentionConfig(hidden_width=16, encoder="shared", scale_output=True),
    OffsetConfig(hidden_width=16),
    OffsetConfig(hidden_width=16, encoder="shared", scale_output=True, use_timestep=False),
    ModulatedMlpConfig(hidden_width=16, bottleneck_width=8),
    ModulatedMlpConfig(hidden_width=16, bottleneck_width=8, encoder="per-layer", use_condition=False),
]
each_kind = pytest.mark.parametrize("config", KINDS, ids=lambda c: f"{c.method}-{c.encoder}-{c.scale_output}")


@pytest.fixture
def call(teacher):
    rng = torch.Generator().manual_seed(3)
    latents = torch.randn(5, *teacher.latent_shape, generator=rng)
    timestep = torch.tensor([999.0, 700.0, 400.0, 100.0, 0.0])
    scales = torch.tensor([1.0, 1.5, 2.0, 4.0, 7.5])
    return latents, timestep, Ask(teacher.class_condition([0, 3, 5, 9, 2]), teacher.null_condition(5), scales)


def new_adapter(config, teacher, seed=0):
    return Adapter(config, teacher.backbone.sites, teacher.backbone.embedding_widths, seed)


def randomised(config, teacher):
    adapter = new_adapter(config, teacher)
    rng = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return adapter


@each_kind
def test_the_untrained_student_is_the_base_bit_for_bit(config, teacher, call):
    bare = teacher.predict(*call)
    with Student(teacher) as student:
        student.add("new", new_adapter(config, teacher))
        assert torch.equal(student.predict(*call), bare)


@each_kind
def test_a_trained_adapter_acts_and_removing_it_restores_the_base(config, teacher, call):
    bare = teacher.predict(*call)
    keys = set(teacher.network.state_dict())
    with Student(teacher) as student:
        student.add("trained", randomised(config, teacher))
        assert not torch.allclose(student.predict(*call), bare, atol=1e-3)
        assert torch.equal(teacher.predict(*call), bare)
        student.activate(None)
        assert torch.equal(student.predict(*call), bare)
        student.activate("trained")
        assert not torch.allclose(student.predict(*call), bare, atol=1e-3)
        assert set(teacher.network.state_dict()) == keys
    assert torch.equal(teacher.predict(*call), bare)
    assert all(len(module._forward_hooks) == 0 for module in teacher.network.modules())


@each_kind
def test_scaled_output_is_the_base_at_scale_one(config, teacher, call):
    latents, timestep, ask = call
    with Student(teacher) as student:
        student.add("trained", randomised(config, teacher))
        same = torch.equal(student.predict(latents, timestep, Ask.unguided(ask.condition)), teacher.predict(*call))
    assert same == config.scale_output


@each_kind
def test_rows_do_not_influence_each_other(config, teacher, call):
    latents, timestep, ask = call
    with Student(teacher) as student:
        student.add("trained", randomised(config, teacher))
        together = student.predict(*call)
        rows = [slice(i, i + 1) for i in range(5)]
        alone = torch.cat([student.predict(latents[r], timestep[r], ask[r]) for r in rows])
    assert torch.allclose(together, alone, atol=1e-5)


@each_kind
def test_gradients_reach_every_adapter_weight_and_no_base_weight(config, teacher, call):
    adapter = randomised(config, teacher)
    with Student(teacher) as student:
        student.add("trained", adapter)
        student.predict(*call).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.parameters())
    assert all(p.grad is None for p in teacher.network.parameters())


@each_kind
def test_the_config_survives_json(config):
    assert TypeAdapter(AnyAdapterConfig).validate_json(config.model_dump_json()) == config


def test_equal_seeds_give_equal_adapters_and_leave_the_global_state_alone(teacher):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, second = (new_adapter(KINDS[0], teacher, seed=4).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(
        new_adapter(KINDS[0], teacher, seed=5).layers[0].query.weight, first["layers.0.query.weight"]
    )


def test_several_adapters_one_active(teacher, call):
    with Student(teacher) as student:
        student.add("first", randomised(KINDS[0], teacher))
        first = student.predict(*call)
        student.add("second", randomised(KINDS[4], teacher))
        second = student.predict(*call)
        student.activate("first")
        assert torch.equal(student.predict(*call), first)
        assert not torch.equal(first, second)
        with pytest.raises(ValueError, match="already loaded"):
            student.add("first", randomised(KINDS[0], teacher))
        with pytest.raises(ValueError, match="loaded: first, second"):
            student.activate("third")


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
    assert codes.shape == (1, 2 + tokens, 8)
    assert torch.isfinite(adapter.layers[0](torch.randn(1, 4, 12), codes)).all()


def test_a_joint_attention_gets_the_offset_on_its_image_stream_only():
    class JointAttention(torch.nn.Module):
        def forward(self, hidden_states, encoder_hidden_states):
            return hidden_states, encoder_hidden_states

    network = torch.nn.ModuleDict({"attn": JointAttention()})
    adapter = Adapter(OffsetConfig(hidden_width=4), [AdapterSite("attn", 6)], (5, 5))
    torch.nn.init.ones_(adapter.layers[0].net[-1].bias)
    from agd_core.adapters import AdapterInputs, AttachedAdapter

    attached = AttachedAdapter(network, adapter)
    image, text = torch.zeros(1, 3, 6, dtype=torch.bfloat16), torch.zeros(1, 2, 6)
    with attached.active(AdapterInputs(torch.tensor([2.0]), torch.zeros(1, 5), torch.zeros(1, 1, 5))):
        image_out, text_out = network["attn"](hidden_states=image, encoder_hidden_states=text)
    assert image_out.dtype == torch.bfloat16
    assert torch.equal(image_out, torch.ones_like(image))
    assert torch.equal(text_out, text)
