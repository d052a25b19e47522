import pytest
import torch
from torch import nn

from agd_core.guidance import ClassifierFreeGuidance, IntervalGuidance
from agd_core.memory import (
    Sized,
    decoding_memory,
    encoding_memory,
    largest_batch,
    sampling_memory,
    training_memory,
)
from agd_core.memory.fake_model import FakeModel
from agd_core.memory.full_size import FullSizeModel, full_size_model
from agd_core.memory.peak_memory import OTHER, LivingTensors
from agd_core.methods import CrossAttentionConfig, FinetuneConfig, FullGuideConfig, OffsetConfig, Pairs, TinyGuideConfig
from agd_core.models.ask import Ask
from agd_core.models.backbones import backbone_of
from agd_core.models.condition import Condition
from agd_core.models.sources import resolve_source
from tests.soak import short

TINY = ("tiny-dit", "tiny-sd", "tiny-sdxl", "tiny-sd3")
BOTH = (False, True)
OWN_NETWORKS = (FullGuideConfig(), TinyGuideConfig(width_fraction=0.5, code_width=32), FinetuneConfig())
DTYPES = (torch.float32, torch.bfloat16)
HEADS, WIDTH, TOKENS = 4, 64, 1024


def tiny(name, **settings):
    model = FullSizeModel.of_folder(resolve_source(f"builtin:{name}"), name)
    return Sized(model, model.network_config["sample_size"], **{"on_cuda": False, **settings})


def real_network(sized):
    torch.manual_seed(0)
    network = nn.Module.to(sized.model.network(), sized.dtype).to_empty(device="cpu")
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.uniform_(-0.1, 0.1)
    return network


def real_peak(sized, adapter_config, batch, checkpointing):
    """The same step with real tensors, followed the same way."""
    network = real_network(sized)
    model = FakeModel(sized, network)
    adapter = adapter_config.build(model.backbone)
    optimizer = torch.optim.Adam(adapter.parameters(), fused=True)
    sum(p.sum() for p in adapter.parameters()).backward()
    optimizer.step()
    optimizer.zero_grad()
    table = Condition(**{name: torch.zeros_like(t) for name, t in sized.conditions(batch).tensors().items()})
    resting = [*network.parameters(), *network.buffers(), *adapter.parameters(), *adapter.buffers()]
    resting += [v for state in optimizer.state.values() for v in state.values()]
    with LivingTensors() as living:
        living.name([*resting, *table.tensors().values()], "resting")
        pairs, middle = torch.randn_like(sized.latents(batch, 2)), torch.full((batch,), 500.0)
        with adapter.installed(model, checkpointing) as student:
            adapter.loss(student, Pairs(pairs[:, 0], middle, Ask(table, table, middle), pairs[:, 1])).backward()
        optimizer.step()
    return living.peak


@pytest.mark.parametrize(
    ("name", "checkpointing", "config"),
    short(
        [
            *((name, checkpointing, CrossAttentionConfig(hidden_width=32)) for name in TINY for checkpointing in BOTH),
            (TINY[0], False, OffsetConfig(hidden_width=32)),
            *((name, checkpointing, config) for config in OWN_NETWORKS for name in TINY for checkpointing in BOTH),
        ],
        keep=(1, 2, 2 * len(TINY), 2 * len(TINY) + 2, 4 * len(TINY) + 8, 6 * len(TINY) + 1),
        several=True,
    ),
)
def test_the_estimate_is_what_a_real_step_takes(name, checkpointing, config):
    sized, batch = tiny(name), 3
    estimate = training_memory(sized, config, batch, activation_checkpointing=checkpointing)
    assert estimate.peak_bytes == pytest.approx(real_peak(sized, config, batch, checkpointing), rel=0.03)


def test_the_estimate_of_a_whole_copy_beside_a_base_in_half_precision_is_what_a_real_step_takes():
    sized, config, batch = tiny("tiny-sd", dtype=torch.bfloat16), FinetuneConfig(), 3
    estimate = training_memory(sized, config, batch)
    assert estimate.peak_bytes == pytest.approx(real_peak(sized, config, batch, False), rel=0.03)
    backbone = backbone_of(real_network(sized))
    base, copied = backbone.parameters, 4 * config.build(backbone).parameter_count()
    assert estimate.parts["base weights"] == pytest.approx(2 * base, rel=0.01)
    assert estimate.parts["adapter weights"] == pytest.approx(copied, rel=0.01)
    assert estimate.parts["optimizer state"] == pytest.approx(2 * copied, rel=0.01)


def test_sampling_with_a_network_of_its_own_holds_both():
    """In half precision the peak is when it is cast, one tensor after the other."""
    whole, half = (sampling_memory(tiny("tiny-dit", dtype=each), 2, method=FinetuneConfig()) for each in DTYPES)
    assert whole.parts["adapter weights"] > whole.parts["base weights"] > 0
    assert half.parts["base weights"] == pytest.approx(whole.parts["base weights"] / 2, rel=0.01)
    assert half.peak_bytes < half.parts["base weights"] + 1.1 * whole.parts["adapter weights"]


def test_weights_gradients_and_moments_are_counted_by_name():
    sized, config = tiny("tiny-sd"), CrossAttentionConfig(hidden_width=32)
    backbone = backbone_of(sized.model.network())
    trained = 4 * config.build(backbone).parameter_count()
    estimate = training_memory(sized, config, 64)
    assert sum(estimate.parts.values()) == estimate.peak_bytes
    assert estimate.parts["base weights"] == 4 * backbone.parameters
    assert estimate.parts["optimizer state"] == pytest.approx(2 * trained, rel=0.01)
    tokens, width = sized.model.prompt_tokens, sized.model.network_config["cross_attention_dim"]
    assert estimate.parts["conditions"] == 4 * 64 * tokens * width
    assert estimate.as_dict()["peak_gib"] == round(estimate.peak_bytes / 2**30, 3)


def test_remedies_help():
    sized, config = tiny("tiny-dit"), CrossAttentionConfig(hidden_width=16)
    plain = training_memory(sized, config, 32).peak_bytes
    checkpointed = training_memory(sized, config, 32, activation_checkpointing=True).peak_bytes
    half = training_memory(tiny("tiny-dit", dtype=torch.bfloat16), config, 32).peak_bytes
    offloaded = training_memory(sized, config, 32, offloaded_optimizer=True)
    assert checkpointed < 0.7 * plain
    assert half < 0.7 * plain
    assert offloaded.peak_bytes < plain
    assert "optimizer state" not in offloaded.parts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_no_matrix_of_all_tokens_by_all_tokens_is_counted(dtype):
    sized = Sized(full_size_model("sd15"), 128, dtype)  # 16,384 tokens: 8 heads of such a matrix are over 4 GiB
    matrix = 8 * (128 * 128) ** 2 * dtype.itemsize
    assert sampling_memory(sized, 1).parts[OTHER] < matrix / 4


def test_guidance_takes_twice_the_activations_of_one_pass():
    sized = tiny("tiny-sd")
    alone, guided = sampling_memory(sized, 8), sampling_memory(sized, 8, ClassifierFreeGuidance())
    assert guided.parts[OTHER] == pytest.approx(sampling_memory(sized, 16).parts[OTHER], rel=0.1)
    assert guided.parts[OTHER] > 1.5 * alone.parts[OTHER]
    student = sampling_memory(sized, 8, method=OffsetConfig(hidden_width=32))
    assert alone.peak_bytes < student.peak_bytes < guided.peak_bytes
    interval = IntervalGuidance[ClassifierFreeGuidance](high=2.9, rule=ClassifierFreeGuidance())
    assert sampling_memory(sized, 8, interval) == guided, "inside of the interval"


def test_a_learned_variance_that_is_kept_is_predicted_too():
    """The peak lies in the backward pass, when the loss has let go of its targets: it need not grow."""
    sized = [tiny("tiny-dit", slots=slots) for slots in (1, 2)]
    dropped, kept = (FakeModel(one, one.network()).prediction_channels for one in sized)
    assert kept == 2 * dropped
    peaks = [training_memory(one, OffsetConfig(hidden_width=32), 4).peak_bytes for one in sized]
    assert peaks[1] >= peaks[0]


def test_cuda_hands_out_whole_blocks():
    config = OffsetConfig(hidden_width=32)
    exact, rounded = (training_memory(tiny("tiny-sd", on_cuda=cuda), config, 2).parts for cuda in (False, True))
    assert all(size % 512 == 0 for size in rounded.values())
    assert rounded["base weights"] > exact["base weights"]


def test_decoding_is_bounded_and_in_float32():
    sized = Sized(full_size_model("sdxl"), 128, torch.bfloat16)
    one, many = decoding_memory(sized, 1), decoding_memory(sized, 64)
    assert one == many
    assert one.parts["VAE weights"] >= 4 * 83_653_863


def test_text_encoders_lie_beside_the_network():
    found = encoding_memory(Sized(full_size_model("sd3-medium"), 128, torch.bfloat16)).parts
    assert found["text encoder weights"] >= 2 * (123_650_304 + 694_659_840 + 4_762_310_656)
    assert found["base weights"] >= 2 * 2_028_328_000


@pytest.mark.parametrize(
    ("peak_of", "limit", "largest"),
    [
        (lambda b: 100 + 10 * b, 199, 9),
        (lambda b: 100 + 10 * b, 200, 10),
        (lambda b: 100 + 10 * b, 109, 0),
        (lambda b: 100 + 10 * b, 110, 1),
        (lambda b: max(500, 40 * b), 1000, 25),
        (lambda b: max(500, 40 * b, 60 * b - 300), 1000, 21),
        (lambda b: 1, 1000, 4096),
        (lambda b: 10 * b + b * b // 50, 100_000, 2000),
    ],
)
@pytest.mark.parametrize("known", [1, 2, 7, 100])
def test_the_largest_batch_is_exact_and_found_in_few_tries(peak_of, limit, largest, known):
    tries = set()
    found = largest_batch(lambda b: tries.add(b) or peak_of(b), limit, known=known)
    assert found == largest
    assert len(tries) <= 12


def test_a_storage_is_counted_once_and_until_it_dies():
    weight = torch.zeros(10)
    with LivingTensors() as living:
        living.name([weight, weight.view(2, 5)], "weight")
        kept = weight + 1
        for _ in range(3):
            _ = (kept * 2).view(5, 2)
        del _
        living.name([kept], "kept")
        living.reset()
        weight.add_(1)
        assert (living.peak, living.parts) == (80, {"weight": 40, "kept": 40})
    assert weight.sum() == 10
