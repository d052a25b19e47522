"""What users do with a pipeline that has an adapter: copy, save, share, cast, offload."""

import copy
import json
import threading

import accelerate
import diffusers
import pytest
import torch

import agd_core
from agd_core.methods.attached import GuidedCall
from agd_core.models.ask import Ask
from agd_core.models.backbones import backbone_of
from tests.agd_core.pipelines.stock import (
    PIPELINES,
    PIXELS,
    as_kind,
    images,
    network_of,
    new_adapter,
    open_miniature,
    open_pipeline,
    quiet,
)

each_family = pytest.mark.parametrize("case", ["sd", "sdxl", "dit", "sd3"])


@pytest.fixture
def pipe(case, adapters):
    opened = open_pipeline(case)
    agd_core.load_adapter(opened, adapters(PIPELINES[case][0]))
    return opened


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def close(a, b):
    """Equal but for what another place in memory does to the last bits."""
    return torch.allclose(a.float(), b.float(), atol=1e-5)


@each_family
def test_saving_writes_the_stock_folder_and_the_adapter_loads_into_it_again(case, pipe, adapters, tmp_path):
    adapted, stock = images(pipe), open_pipeline(case)
    images(stock, 1.0)  # tokenizers remember how they were used
    stock.save_pretrained(tmp_path / "stock")
    pipe.save_pretrained(tmp_path / "loaded")
    assert files(tmp_path / "loaded").keys() == files(tmp_path / "stock").keys()
    assert files(tmp_path / "loaded") == files(tmp_path / "stock")
    again = quiet(diffusers.DiffusionPipeline.from_pretrained(tmp_path / "loaded"))
    agd_core.load_adapter(again, adapters(PIPELINES[case][0]))
    assert close(images(again), adapted)


@each_family
def test_a_deep_copy_has_adapters_of_its_own(case, pipe):
    stock = images(open_pipeline(case))
    adapted = images(pipe)
    twin = copy.deepcopy(pipe)
    assert close(images(twin), adapted)
    agd_core.set_enabled(twin, False)
    assert close(images(twin), stock)
    assert torch.equal(images(pipe), adapted)
    agd_core.set_enabled(twin, True)
    agd_core.unload(pipe)
    assert close(images(pipe), stock)
    assert close(images(twin), adapted)
    agd_core.unload(twin)
    assert not any(module._forward_hooks for module in network_of(twin).modules())


@pytest.mark.parametrize(("case", "other"), [("sd", "sd-img2img"), ("sd", "sd-controlnet"), ("sdxl", "sdxl-inpaint")])
def test_pipelines_that_share_the_network_share_the_adapter(case, other, pipe, adapters):
    """Loading before and after `from_pipe` is the same."""
    before = images(as_kind(pipe, PIPELINES[other][1]))
    plain = open_pipeline(case)
    shared = as_kind(plain, PIPELINES[other][1])
    agd_core.load_adapter(plain, adapters(PIPELINES[case][0]))
    assert close(images(shared), before)
    agd_core.unload(shared)
    assert close(images(plain), images(open_pipeline(case)))


@each_family
def test_half_precision_keeps_the_adapter_in_float32(case, pipe):
    """bfloat16 images are those of float32 to its rounding; the unguided ones are much further away."""
    adapted, unguided = images(pipe), images(pipe, 1.0)
    half = images(pipe.to(torch.bfloat16)).float()
    assert mean(half - adapted) < 0.25 * mean(unguided - adapted)
    assert close(images(pipe.to(torch.float32)), images(pipe))


def mean(difference):
    return difference.abs().mean().item()


@each_family
def test_an_offloaded_network_with_its_weights_on_meta_between_calls(case, pipe, adapters):
    """What sequential offload does; the adapter loads into such a network too."""
    adapted, network = images(pipe), network_of(pipe)
    accelerate.cpu_offload(network, execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in network.parameters())
    assert close(images(pipe), adapted)
    agd_core.unload(pipe)
    agd_core.load_adapter(pipe, adapters(PIPELINES[case][0]))
    assert close(images(pipe), adapted)
    agd_core.load_adapter(pipe, adapters(PIPELINES[case][0], trained=False), name="nothing")
    assert not close(images(pipe), adapted)


@each_family
def test_a_pipeline_and_a_student_on_one_network_agree(case, pipe):
    """The adapter hears the same in both: guidance scale, timestep, condition."""
    network = network_of(pipe)
    seen = []
    handle = network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args, kwargs)), with_kwargs=True
    )
    answers = []
    other = network.register_forward_hook(lambda module, args, output: answers.append(output[0].clone()))
    images(pipe, 5.0)
    handle.remove()
    other.remove()
    agd_core.unload(pipe)
    backbone, adapter = backbone_of(network), new_adapter(network, trained=True)
    for (args, kwargs), answer in zip(seen, answers, strict=True):
        call, scale = backbone.read_call(args, kwargs), torch.tensor([5.0])
        assert call.latents.shape[0] == 1
        guided = GuidedCall(backbone, call.timestep, Ask(call.condition, call.condition, scale))
        expected = student_answer(network, adapter, guided, args, kwargs)
        assert torch.allclose(answer[-1:], expected, atol=1e-5)


@torch.no_grad()
def student_answer(network, adapter, guided, args, kwargs):
    attached = adapter.attach(network)
    with attached.during(guided):
        output = network(*args, **kwargs)[0]
    attached.detach()
    return output


def test_a_call_that_no_pipeline_makes_is_the_base_networks(adapters):
    pipe = open_miniature("tiny-dit")
    call = {"timestep": torch.tensor([3]), "class_labels": torch.tensor([1])}
    latents = torch.ones(1, 4, PIXELS // 8, PIXELS // 8)
    with torch.no_grad():
        plain = pipe.transformer(latents, **call).sample
        agd_core.load_adapter(pipe, adapters("tiny-dit"))
        assert torch.equal(pipe.transformer(latents, **call).sample, plain)


def test_the_config_that_is_saved_never_says_a_guidance_embedding(adapters, tmp_path):
    pipe = open_miniature("tiny-sd")
    agd_core.load_adapter(pipe, adapters("tiny-sd"))
    assert pipe.unet.config.time_cond_proj_dim == 8
    pipe.unet.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["time_cond_proj_dim"] is None
    agd_core.unload(pipe)
    assert pipe.unet.config.time_cond_proj_dim is None


@each_family
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_of_a_call_that_was_broken_off_is_left(case, pipe, error):
    """Ctrl-C in the middle of the network, which PyTorch tells no hook of."""
    adapted, network = images(pipe), network_of(pipe)
    handle = network.get_submodule(backbone_of(network).sites[-1].path).register_forward_hook(break_off(error))
    with pytest.raises(error):
        images(pipe)
    handle.remove()
    agd_core.set_enabled(pipe, False)
    assert torch.equal(images(pipe), images(open_pipeline(case)))
    agd_core.set_enabled(pipe, True)
    assert torch.equal(images(pipe), adapted)


def break_off(error):
    def hook(module, args, output):
        raise error

    return hook


@pytest.mark.parametrize("case", ["sd", "dit"])
def test_threads_that_share_a_network_take_turns(case, pipe):
    """Every thread gets the images of its own scale, also of none; between another's, steps are prepared alone."""
    scales, made = (1.0, 2.0, 9.0), {}
    pipes = {scale: sharing_the_network(pipe) for scale in scales}
    alone = {scale: images(pipes[scale], scale) for scale in scales}

    def work(scale):
        made[scale] = [images(pipes[scale], scale) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(scale,)) for scale in scales]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(close(image, alone[scale]) for scale in scales for image in made[scale])


def sharing_the_network(pipe):
    """A pipeline of the same parts but for scheduler and tokenizer, which are for one thread."""
    own = {name: copy.deepcopy(part) for name, part in pipe.components.items() if name in ("scheduler", "tokenizer")}
    extra = {} if "unet" not in pipe.components else {"requires_safety_checker": False}
    return quiet(type(pipe)(**{**pipe.components, **own}, **extra))
