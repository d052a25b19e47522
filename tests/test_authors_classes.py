"""The authors' adapters in the benchmarks compute what ours of the same form do: the same work is timed."""

import pytest
import torch

from agd_core.methods import CrossAttentionConfig, OffsetConfig
from benchmarks.authors_classes import authors_optimizer, installed
from tests.agd_core.methods.examples import call_of, model_of, randomised

KINDS = {"cross-attention": CrossAttentionConfig(hidden_width=16), "offset": OffsetConfig(hidden_width=16)}
NETWORKS = ("DiTTransformer2DModel", "UNet2DConditionModel", "SD3Transformer2DModel")


def hand_over(ours, theirs):
    """Give their modules our weights, site by site; both name their parts in the same order but for the layer's."""
    with torch.no_grad():
        for encoder, layer, site in zip(ours.encoders, ours.layers, theirs.wrapped, strict=True):
            for name, module in (("scale", encoder.scale), ("time", encoder.time), ("condition", encoder.condition)):
                copy_values(module, site.get_submodule(name))
            if hasattr(site, "query"):
                for name in ("query", "key", "value", "out"):
                    copy_values(layer.get_submodule(name), site.get_submodule(name))
            else:
                copy_values(layer, site.out)


def copy_values(source, target):
    given, taken = list(source.state_dict().values()), list(target.state_dict().values())
    assert [value.shape for value in given] == [value.shape for value in taken]
    for value, place in zip(given, taken, strict=True):
        place.copy_(value)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("kind", KINDS)
def test_with_our_weights_they_answer_as_ours_do(network, kind):
    model = model_of(network)
    latents, timestep, ask = call_of(model)
    bare = model.backbone.call(latents, timestep, ask.condition)
    ours = randomised(KINDS[kind].build(model.backbone))
    with ours.installed(model) as student, torch.no_grad():
        expected = student.predict(latents, timestep, ask)
    with installed(model.backbone, kind, 16) as theirs, torch.no_grad():
        assert torch.equal(theirs(latents, timestep, ask), bare)  # they add nothing before training
        hand_over(ours, theirs)
        torch.testing.assert_close(theirs(latents, timestep, ask)[:, : expected.shape[1]], expected)
        assert sum(p.numel() for p in theirs.trained()) == ours.parameter_count()
    assert not torch.equal(expected, bare[:, : expected.shape[1]])
    assert torch.equal(model.backbone.call(latents, timestep, ask.condition), bare)


def test_their_rate_rises_over_a_tenth_and_falls_as_a_cosine():
    optimizer, schedule = authors_optimizer([torch.nn.Parameter(torch.ones(1))], 100, rate=1.0)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5, abs=0.01)
    assert rates[99] < 2e-3
