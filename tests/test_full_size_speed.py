"""The FLOP ratio of the benchmark of full-size networks, against a count by hand on a small one."""

import pytest

from agd_core.memory import Sized
from agd_core.memory.full_size import FullSizeModel
from agd_core.methods import CrossAttentionConfig, ModulatedMlpConfig, OffsetConfig
from benchmarks.full_size_speed import StepFlops, step_flops
from benchmarks.gpu.timing import divided, quartiles

WIDTH, HIDDEN, BOTTLENECK, BLOCKS, TOKENS, CODES = 16, 8, 5, 2, 16, 3


@pytest.fixture(scope="module")
def sized():
    network = {
        "_class_name": "DiTTransformer2DModel",
        "num_attention_heads": 2,
        "attention_head_dim": WIDTH // 2,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": BLOCKS,
        "sample_size": 8,
        "patch_size": 2,
        "norm_num_groups": 4,
        "num_embeds_ada_norm": 10,
    }
    return Sized(FullSizeModel("small", "DiTPipeline", network, {}), latent_side=8)


def multiply(rows, inputs, outputs):
    return 2 * rows * inputs * outputs


CROSS_ATTENTION = 2 * multiply(TOKENS, WIDTH, CODES)
MODULATED_MLP = 2 * multiply(TOKENS, WIDTH, BOTTLENECK + 1)


@pytest.mark.parametrize(
    ("config", "added"),
    [
        (CrossAttentionConfig(hidden_width=HIDDEN), BLOCKS * CROSS_ATTENTION),
        (CrossAttentionConfig(hidden_width=HIDDEN, encoder="shared"), BLOCKS * CROSS_ATTENTION),
        (ModulatedMlpConfig(hidden_width=HIDDEN, bottleneck_width=BOTTLENECK), BLOCKS * MODULATED_MLP),
        (OffsetConfig(hidden_width=HIDDEN), 0),
    ],
)
def test_an_adapter_adds_to_a_step_what_a_count_by_hand_says(sized, config, added):
    flops = step_flops(sized, {"it": config})["it"]
    assert flops.cfg == 2 * flops.bare
    assert flops.agd == flops.bare + added


def test_adapters_are_counted_one_by_one(sized):
    config = OffsetConfig(hidden_width=HIDDEN)
    twice = step_flops(sized, {"first": config, "second": config})
    assert twice["first"] == twice["second"]


def test_the_ratio_is_cfg_over_agd():
    assert StepFlops(bare=100, cfg=200, agd=125).ratio == 1.6


def test_ratios_are_taken_within_a_round():
    assert quartiles(divided([2.0, 6.0, 8.0], [1.0, 2.0, 2.0])) == "3.000 (2.500 to 3.500)"
