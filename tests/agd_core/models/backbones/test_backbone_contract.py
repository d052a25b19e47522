"""What every class of networks must keep, against diffusers' own module in its stock pipeline.

The examples are all miniatures; a class of networks without one fails here.
"""

import math
from contextlib import contextmanager

import pytest
import torch

import agd_core
from agd_core.basics.errors import InputError
from agd_core.basics.seeding import generator, stacked_noise
from agd_core.builtin.miniatures import MINIATURES, miniature_folder
from agd_core.data.subjects import Subjects
from agd_core.memory import Sized
from agd_core.memory.full_size import FullSizeModel
from agd_core.models.backbones import BACKBONES, NetworkCall
from agd_core.models.config import BaseModelConfig
from agd_core.models.reading import network_class
from tests.agd_core.pipelines.stock import write_adapter
from tests.composition_parts import PROMPT, draw, load_stock, network

CPU = torch.device("cpu")
STEPS = 4
"""Of `draw`."""


class Example:
    """A miniature as our model and as diffusers' pipeline, with every call of its network in one guided image."""

    def __init__(self, name):
        self.name, self.folder = name, miniature_folder(name)
        self.model = BaseModelConfig(source=f"builtin:{name}").build(CPU)
        self.backbone = self.model.backbone
        self.pipe = load_stock(self.folder)
        with recorded(network(self.pipe)) as self.calls:
            draw(self.pipe, scale=5.0)

    def asked(self, rows):
        """The condition of what `draw` asks for."""
        subjects = Subjects(self.model, () if self.model.class_names else (PROMPT,))
        return subjects.condition([3 if self.model.class_names else 0] * rows)

    def inputs(self, rows):
        noise = stacked_noise([generator(row, "noise") for row in range(rows)], self.model.latent_shape)
        return noise, torch.linspace(10, 900, rows), self.asked(rows)


@contextmanager
def recorded(module):
    """(args, kwargs, output) of every call of a module in the block."""
    calls = []
    handle = module.register_forward_hook(lambda module, *call: calls.append(call), with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


@pytest.fixture(scope="module", params=MINIATURES)
def example(request):
    return Example(request.param)


def same(one, other):
    return one.tensors().keys() == other.tensors().keys() and all(
        torch.equal(one[name], other[name]) for name in one.tensors()
    )


def test_every_class_has_a_miniature():
    assert {network_class(miniature_folder(name), name).class_name for name in MINIATURES} == set(BACKBONES)


def test_the_start_tokens_are_those_that_no_prompt_changes(example):
    if example.model.class_names:
        assert example.backbone.start_tokens == 0
        return
    one, other = example.model.prompt_condition(["a red bus", "snow on the roof"])["encoder_hidden_states"]
    changes = (one - other).abs().amax(dim=1)
    start = example.backbone.start_tokens
    assert bool((changes[:start] < 1e-5).all())
    assert changes[start] > 1e-2


@torch.no_grad()
def test_our_call_is_the_modules_own_answer_to_the_stock_pipeline(example):
    assert len(example.calls) >= STEPS
    for args, kwargs, output in example.calls:
        call = example.backbone.read_call(args, kwargs)
        assert torch.equal(example.backbone.call(call.latents, call.timestep, call.condition), output[0].float())


@torch.no_grad()
def test_a_condition_comes_back_from_the_modules_arguments(example):
    latents, timestep, condition = example.inputs(2)
    with recorded(example.backbone.network) as calls:
        example.backbone.call(latents, timestep, condition)
    ((args, kwargs, _),) = calls
    read = example.backbone.read_call(args, kwargs)
    assert torch.equal(read.latents, latents)
    assert torch.equal(read.timestep, timestep)
    assert same(read.condition, condition)


@torch.no_grad()
def test_sites_are_modules_that_get_hidden_states_of_their_layout(example):
    latents, timestep, condition = example.inputs(2)
    paths = [site.path for site in example.backbone.sites]
    assert len(set(paths)) == len(paths) > 0
    seen = {}
    for site in example.backbone.sites:
        example.backbone.network.get_submodule(site.path).register_forward_hook(
            lambda module, args, kwargs, output, path=site.path: seen.update(
                {path: args[0] if args else kwargs["hidden_states"]}
            ),
            with_kwargs=True,
        )
    example.backbone.call(latents, timestep, condition)
    for site in example.backbone.sites:
        axis = {"tokens": -1, "map": 1}[site.layout]
        assert len(seen[site.path]) == 2
        assert seen[site.path].shape[axis] == site.width
        assert (site.layout == "tokens") == (seen[site.path].ndim == 3)


def entering(arguments, inlet):
    """What comes to a module at an inlet."""
    args, kwargs = arguments
    if inlet.skip is not None:
        return kwargs["res_hidden_states_tuple"][inlet.skip]
    return args[0] if args else kwargs["hidden_states"]


@torch.no_grad()
def test_inlets_are_all_of_the_second_halfs_with_features_of_their_size(example):
    latents, timestep, condition = example.inputs(2)
    inlets, called = example.backbone.inlets, {}
    assert len({(inlet.path, inlet.skip) for inlet in inlets}) == len(inlets)
    for path in {inlet.path for inlet in inlets}:
        example.backbone.network.get_submodule(path).register_forward_pre_hook(
            lambda module, args, kwargs, path=path: called.update({path: (args, kwargs)}), with_kwargs=True
        )
    example.backbone.call(latents, timestep, condition)
    for inlet in inlets:
        sides = [side // inlet.shrunk for side in latents.shape[2:]]
        shape = (2, inlet.width, *sides) if inlet.layout == "map" else (2, math.prod(sides), inlet.width)
        assert entering(called[inlet.path], inlet).shape == shape
    skipped = [each for _, kwargs in called.values() for each in kwargs.get("res_hidden_states_tuple", ())]
    assert len(skipped) == sum(inlet.skip is not None for inlet in inlets)


@torch.no_grad()
def test_through_its_own_blocks_go_the_tokens_that_go_through_the_network(example):
    latents, timestep, condition = example.inputs(2)
    call = NetworkCall(latents, timestep, condition)
    blocks = getattr(example.backbone.network, "transformer_blocks", [])
    if not blocks:
        with pytest.raises(InputError, match="how blocks of a UNet2DConditionModel are called"):
            example.backbone.through(blocks, call, torch.zeros(1))
        return
    seen = []
    for block in blocks:
        block.register_forward_hook(lambda module, args, output: seen.append(output))
    example.backbone.call(latents, timestep, condition)
    images = [each[1] if isinstance(each, tuple) else each for each in seen]
    for found, expected in zip(list(example.backbone.through(blocks, call, torch.zeros(1))), images, strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
    moved = next(example.backbone.through(blocks, call, torch.ones(1)))
    assert not torch.allclose(moved, images[0], atol=1e-3)


@torch.no_grad()
def test_embeddings_have_their_widths(example):
    _, timestep, condition = example.inputs(3)
    time, asked = example.backbone.embedding_widths
    features = example.backbone.embed_timestep(timestep), example.backbone.embed_condition(condition)
    assert features[0].shape == (3, time)
    assert (features[1].shape[0], features[1].ndim, features[1].shape[2]) == (3, 3, asked)
    assert {each.dtype for each in features} == {torch.float32}


def test_conditions_and_null_are_the_stock_pipelines(example):
    """One of the halves that the pipeline joins is what was asked for, the other is "no condition"."""
    halves = [each for args, kwargs, _ in example.calls[:1] for each in (args, kwargs)]
    both = example.backbone.read_call(*halves).condition
    null, asked = example.model.null_condition(1), example.asked(1)
    assert len(both) == 2
    assert any(same(both[:1], one) and same(both[1:], other) for one, other in ((null, asked), (asked, null)))
    assert len(example.model.null_condition(3)) == 3


def test_the_shapes_for_memory_estimates_are_those_of_the_model(example):
    sizes = FullSizeModel.of_folder(example.folder, example.name)
    sized, asked = Sized(sizes, sizes.network_config["sample_size"]), example.asked(2)
    assert sized.latent_shape == example.model.latent_shape
    shapes = [
        {name: (t.shape, t.is_floating_point()) for name, t in condition.tensors().items()}
        for condition in (sized.conditions(2), asked)
    ]
    assert shapes[0] == shapes[1]


def test_an_adapter_guides_the_stock_pipeline_in_one_pass(example, tmp_path):
    write_adapter(tmp_path / "adapter", example.name)
    pipe = load_stock(example.folder)
    agd_core.load_adapter(pipe, tmp_path / "adapter")
    inside, rows = example.backbone.sites[0].path, []
    network(pipe).get_submodule(inside).register_forward_hook(
        lambda module, args, kwargs, output: rows.append(len(args[0] if args else kwargs["hidden_states"])),
        with_kwargs=True,
    )
    draw(pipe, scale=5.0)
    assert rows == [1] * len(example.calls)
