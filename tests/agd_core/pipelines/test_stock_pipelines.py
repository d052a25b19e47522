"""The bars: every stock pipeline guides in one pass per step with an adapter, and is itself again without."""

import pytest
import torch

import agd_core
from tests.agd_core.pipelines.stock import PIPELINES, counted_rows, images, network_of, open_pipeline

each_pipeline = pytest.mark.parametrize("case", PIPELINES)


@pytest.fixture
def pipe(case):
    return open_pipeline(case)


def miniature(case):
    return PIPELINES[case][0]


@each_pipeline
def test_one_evaluation_per_step_of_the_network_and_of_a_controlnet(case, pipe, adapters):
    with counted_rows(pipe) as stock:
        images(pipe)
    agd_core.load_adapter(pipe, adapters(miniature(case)))
    with counted_rows(pipe) as guided:
        images(pipe)
    steps = len(pipe.scheduler.timesteps)  # PNDM takes one more than it is asked for
    assert set(stock.values()) == {2 * steps}
    assert set(guided.values()) == {steps}
    assert len(guided) == (2 if "controlnet" in case else 1)


@each_pipeline
def test_an_identity_adapter_gives_the_unguided_images_bit_for_bit(case, pipe, adapters):
    unguided = images(pipe, 1.0)
    agd_core.load_adapter(pipe, adapters(miniature(case), trained=False))
    assert torch.equal(images(pipe, 7.5), unguided)


@each_pipeline
def test_an_adapter_acts_and_off_it_leaves_stock_cfg_bit_for_bit(case, pipe, adapters):
    guided, unguided = images(pipe, 7.5), images(pipe, 1.0)
    hooks = count_hooks(pipe)
    agd_core.load_adapter(pipe, adapters(miniature(case)))
    adapted = images(pipe, 7.5)
    assert min(largest(adapted - guided), largest(adapted - unguided)) > 1e-2
    assert largest(images(pipe, 3.0) - adapted) > 1e-3
    assert torch.equal(images(pipe, 1.0), unguided)
    assert torch.equal(images(pipe, 7.5), adapted)
    agd_core.set_enabled(pipe, False)
    assert torch.equal(images(pipe, 7.5), guided)
    agd_core.set_enabled(pipe, True)
    assert torch.equal(images(pipe, 7.5), adapted)
    agd_core.unload(pipe)
    assert torch.equal(images(pipe, 7.5), guided)
    assert count_hooks(pipe) == hooks


@pytest.mark.parametrize("case", ["sd", "sdxl", "dit", "pixart", "sd3"])
def test_four_prompts_in_one_call_are_four_calls(case, pipe, adapters):
    prompts = ["a red cat", "three green trees", "", "the sea"]
    name = "class_labels" if case == "dit" else "prompt"
    values = [3, 1, 999, 0] if case == "dit" else prompts
    agd_core.load_adapter(pipe, adapters(miniature(case)))
    together = images(pipe, 4.0, seeds=range(4), **{name: values})
    alone = [images(pipe, 4.0, seeds=[seed], **{name: [value]}) for seed, value in enumerate(values)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("case", ["sd", "dit", "sd3"])
def test_several_images_per_prompt_and_names_that_choose(case, pipe, adapters):
    unguided = images(pipe, 1.0)
    agd_core.load_adapter(pipe, adapters(miniature(case), trained=False), name="nothing")
    agd_core.load_adapter(pipe, adapters(miniature(case)), name="something")
    something = images(pipe)
    agd_core.set_active(pipe, "nothing")
    assert torch.equal(images(pipe), unguided)
    agd_core.unload(pipe, "nothing")
    with counted_rows(pipe) as rows:
        images(pipe)
    assert set(rows.values()) == {2 * len(pipe.scheduler.timesteps)}, "without an active adapter it is CFG"
    agd_core.set_active(pipe, "something")
    assert torch.equal(images(pipe), something)


@pytest.mark.parametrize("case", ["sd", "sdxl", "dit", "sd3"])
def test_an_error_inside_the_network_leaves_no_adapter_active(case, pipe, adapters):
    network, unguided = network_of(pipe), images(pipe, 1.0)
    agd_core.load_adapter(pipe, adapters(miniature(case)))
    expected = images(pipe)
    last = getattr(network, "conv_out", None) or network.proj_out_2 if case == "dit" else list(network.children())[-1]
    handle = last.register_forward_hook(interrupt)
    with pytest.raises(RuntimeError, match="the lights went out"):
        images(pipe)
    handle.remove()
    assert torch.equal(images(pipe, 1.0), unguided)
    assert torch.equal(images(pipe), expected)


def interrupt(*_):
    raise RuntimeError("the lights went out")


def largest(difference):
    return difference.abs().max().item()


def count_hooks(pipe):
    modules = network_of(pipe).modules()
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)
