"""Parameter counts of published models, to the integer, without their weights.

The numbers are those of the reference implementation's classes and of diffusers' networks on the meta device.
"""

from functools import cache

import pytest
import torch

from agd_core.basics.errors import InputError
from agd_core.memory.full_size import FullSizeModel, full_size_model, full_size_names, known_as
from agd_core.methods import CrossAttentionConfig, OffsetConfig
from agd_core.methods.agd.base import Adapter
from agd_core.models.backbones import backbone_of
from agd_core.models.sources import resolve_source

FACEBOOK_DIT = 675_129_632
PARAMETERS = {
    "dit-xl-2-256": 749_826_464,
    "sd15": 859_520_964,
    "sd21": 865_910_724,
    "sdxl": 2_567_463_684,
    "pixart-sigma": 610_856_096,
    "sd3-medium": 2_028_328_000,
    "sd35-medium": 2_243_171_520,
}
SITES = {
    "dit-xl-2-256": {1152: 28},
    "sd15": {320: 5, 640: 5, 1280: 6},
    "sd21": {320: 5, 640: 5, 1280: 6},
    "sdxl": {640: 10, 1280: 60},
    "pixart-sigma": {1152: 28},
    "sd3-medium": {1536: 24},
    "sd35-medium": {1536: 24},
}
PARTS = {"scale": (False, False), "scale, time": (True, False), "all": (True, True)}
# model, hidden width, sites -> cross-attention and offset, each told the scale; and the timestep; and the condition
ADAPTERS = {
    ("dit-xl-2-256", 256, 28): ((34_947_584, 43_212_288, 51_476_992), (24_933_888, 33_198_592, 41_463_296)),
    ("sd21", 320, 13): ((19_904_960, 25_233_920, 29_497_920), (15_342_720, 20_671_680, 24_935_680)),
    ("sd21", 320, 16): ((24_419_520, 30_978_240, 36_226_240), (18_843_840, 25_402_560, 30_650_560)),
    ("sdxl", 320, 58): ((103_827_840, 127_603_200, 165_632_640), (75_974_400, 99_749_760, 137_779_200)),
    ("sdxl", 320, 70): ((125_168_000, 153_862_400, 199_760_000), (91_622_400, 120_316_800, 166_214_400)),
    ("sd3-medium", 320, 24): ((48_259_584, 60_063_744, 91_528_704), (34_089_984, 45_894_144, 77_359_104)),
}
PERCENT = {
    ("dit-xl-2-256", 256, 28): ((5.18, 6.40, 7.62), (3.69, 4.92, 6.14)),
    ("sd21", 320, 13): ((2.30, 2.91, 3.41), (1.77, 2.39, 2.88)),
    ("sd21", 320, 16): ((2.82, 3.58, 4.18), (2.18, 2.93, 3.54)),
    ("sdxl", 320, 58): ((4.04, 4.97, 6.45), (2.96, 3.89, 5.37)),
    ("sdxl", 320, 70): ((4.88, 5.99, 7.78), (3.57, 4.69, 6.47)),
    ("sd3-medium", 320, 24): ((2.38, 2.96, 4.51), (1.68, 2.26, 3.81)),
}
NARROW = {"dit-xl-2-256": (21_167_104, 16_619_008), "sdxl": (62_750_720, 51_052_800)}
NARROW_PERCENT = {"dit-xl-2-256": (3.14, 2.46), "sdxl": (2.44, 1.99), "sd21": (1.22, 1.01), "sd3-medium": (1.52, 1.26)}
KINDS = (CrossAttentionConfig, OffsetConfig)
VAES = {4: 83_653_863, 16: 83_819_683}
CLIP_L, CLIP_L_PROJECTED, CLIP_H, CLIP_G, T5 = 123_060_480, 123_650_304, 340_387_840, 694_659_840, 4_762_310_656
TEXT_ENCODERS = {
    "dit-xl-2-256": [],
    "sd15": [CLIP_L],
    "sd21": [CLIP_H],
    "sdxl": [CLIP_L, CLIP_G],
    "pixart-sigma": [T5],
    "sd3-medium": [CLIP_L_PROJECTED, CLIP_G, T5],
    "sd35-medium": [CLIP_L_PROJECTED, CLIP_G, T5],
}


@cache
def backbone(name):
    return backbone_of(full_size_model(name).network())


def count(module):
    return sum(p.numel() for p in module.parameters())


def adapter_count(name, config, sites=None):
    base = backbone(name)
    with torch.device("meta"):
        return Adapter(config, sites or base.sites, base.embedding_widths).parameter_count()


def wrapped_by_the_authors(name, how_many):
    """All sites, or those that their loop reaches: it takes two attentions of every up block, which hold three."""
    sites = backbone(name).sites
    reached = [site for site in sites if not (site.path.startswith("up_blocks") and ".attentions.2." in site.path)]
    chosen = sites if how_many == len(sites) else reached
    assert len(chosen) == how_many
    return chosen


def base_parameters(name):
    return full_size_model(name).published_parameters or backbone(name).parameters


def test_every_shipped_model_is_tested():
    assert set(full_size_names()) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_published_parameters_and_no_memory(name):
    network = full_size_model(name).network()
    assert count(network) == backbone(name).parameters == PARAMETERS[name]
    assert {tensor.device.type for tensor in (*network.parameters(), *network.buffers())} == {"meta"}
    assert not any(p.requires_grad for p in network.parameters())
    assert not network.training


def test_facebook_counts_one_embedder_and_the_position_table():
    network, model = full_size_model("dit-xl-2-256").network(), full_size_model("dit-xl-2-256")
    embedders = [count(block.norm1.emb) for block in network.transformer_blocks]
    assert len(set(embedders)) == 1
    positions = network.pos_embed.pos_embed.numel()
    assert positions == 294_912
    assert PARAMETERS["dit-xl-2-256"] - sum(embedders[1:]) + positions == FACEBOOK_DIT == model.published_parameters


@pytest.mark.parametrize("name", SITES)
def test_every_attention_of_the_paper_is_a_site(name):
    widths = [site.width for site in backbone(name).sites]
    assert {width: widths.count(width) for width in dict.fromkeys(widths)} == {
        width: SITES[name][width] for width in dict.fromkeys(widths)
    }
    assert len(widths) == sum(SITES[name].values())


@pytest.mark.parametrize(("name", "hidden", "how_many"), ADAPTERS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", PARTS)
def test_adapters_have_the_reference_implementation_s_parameters(name, hidden, how_many, kind, told):
    time, condition = PARTS[told]
    config = kind(hidden_width=hidden, use_timestep=time, use_condition=condition, encoder="per-layer")
    found = adapter_count(name, config, wrapped_by_the_authors(name, how_many))
    column, row = KINDS.index(kind), list(PARTS).index(told)
    assert found == ADAPTERS[name, hidden, how_many][column][row]
    assert round(100 * found / base_parameters(name), 2) == PERCENT[name, hidden, how_many][column][row]


@pytest.mark.parametrize("name", NARROW_PERCENT)
def test_adapters_of_width_128(name):
    found = [adapter_count(name, kind(hidden_width=128)) for kind in KINDS]
    assert [round(100 * number / base_parameters(name), 2) for number in found] == list(NARROW_PERCENT[name])
    assert tuple(found) == NARROW.get(name, tuple(found))


def test_narrow_adapters_that_know_the_scale_alone():
    found = [
        adapter_count("dit-xl-2-256", kind(hidden_width=128, use_timestep=False, use_condition=False)) for kind in KINDS
    ]
    assert [round(100 * number / FACEBOOK_DIT, 2) for number in found] == [1.91, 1.24]


@pytest.mark.parametrize("name", PARAMETERS)
def test_vaes_and_text_encoders_have_the_published_parameters(name):
    model = full_size_model(name)
    assert count(model.vae()) == VAES[model.network_config["in_channels"]]
    assert [count(encoder) for encoder in model.text_encoders()] == TEXT_ENCODERS[name]
    assert model.latent_factor == 8


@pytest.mark.parametrize("name", PARAMETERS)
def test_models_are_found_by_their_hub_ids(name):
    model = full_size_model(name)
    assert model.hub_ids
    assert all(known_as(hub_id) == model for hub_id in model.hub_ids)


def test_unknown_names_are_refused():
    assert known_as("somebody/something") is None
    with pytest.raises(InputError, match="unknown full-size model 'sd9'; known: dit-xl-2-256, pixart-sigma, sd15"):
        full_size_model("sd9")


@pytest.mark.parametrize(
    ("source", "pipeline", "tokens"),
    [("builtin:fashion-dit", "DiTPipeline", 0), ("builtin:tiny-sd3", "StableDiffusion3Pipeline", 77 + 256)],
)
def test_a_local_folder_tells_its_sizes(source, pipeline, tokens):
    folder = resolve_source(source)
    model = FullSizeModel.of_folder(folder, source)
    assert (model.pipeline, model.prompt_tokens) == (pipeline, tokens)
    assert count(model.network()) > 0
    assert len(model.text_encoders()) == (3 if tokens else 0)


def test_a_folder_without_a_network_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "DiTPipeline"}')
    with pytest.raises(InputError, match="not a complete diffusers folder"):
        FullSizeModel.of_folder(tmp_path, "x")


def test_a_configuration_of_no_network_is_refused():
    with pytest.raises(InputError, match="diffusers has no network class 'Nothing'"):
        FullSizeModel("x", "P", {"_class_name": "Nothing"}, {}).network()
