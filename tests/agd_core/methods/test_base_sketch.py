"""A sketch knows its network in every precision and tells every other one."""

import json
import math

import pytest
import torch

from agd_core.basics.checkpoint import save_tensors
from agd_core.basics.errors import InputError
from agd_core.basics.seeding import generator
from agd_core.methods.base_sketch import VALUES, BaseSketch, find_differences, load_sketch, save_sketch, sketch_of

PRECISIONS = [torch.float32, torch.float16, torch.bfloat16]


def network():
    layers = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.Linear(64, 32), torch.nn.LayerNorm(32))
    with torch.no_grad():
        for name, parameter in layers.named_parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator("sketch", name)))
    return layers


def differences(net, sketch):
    found = find_differences(net, sketch)
    return found.missing + found.unlisted + found.other_shape + found.other_values


@pytest.mark.parametrize("loaded", PRECISIONS)
@pytest.mark.parametrize("between", PRECISIONS)
@pytest.mark.parametrize("sketched", PRECISIONS)
def test_precision_does_not_matter_even_through_a_file_in_another_one(sketched, between, loaded):
    sketch = sketch_of(network().to(sketched))
    assert differences(network().to(between).to(loaded), sketch) == ()


def test_memory_format_and_further_parameters_do_not_matter():
    sketch, net = sketch_of(network()), network().to(memory_format=torch.channels_last)
    net.add_module("processor", torch.nn.Linear(2, 2))
    wrapped = net[1]
    net[1] = torch.nn.Module()
    net[1].add_module("base_layer", wrapped)
    net[1].add_module("lora_A", torch.nn.Linear(2, 2))
    assert differences(net, sketch) == ()


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_moved_weights_are_named(dtype):
    sketch, net = sketch_of(network()), network()
    with torch.no_grad():
        net[1].weight.mul_(1.02)
    assert find_differences(net.to(dtype), sketch).other_values == ("1.weight",)


def test_a_little_everywhere_is_another_network():
    sketch, net = sketch_of(network()), network()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.view(-1)[:: parameter.numel() // 4].add_(1.0)
    assert len(find_differences(net, sketch).other_values) == len(sketch.shapes)


def test_missing_and_other_shapes_are_named():
    sketch, net = sketch_of(network()), network()
    net[0] = torch.nn.Conv2d(9, 8, 3)
    net[2] = torch.nn.Identity()
    found = find_differences(net, sketch)
    assert found.missing == ("2.weight", "2.bias")
    assert found.other_shape == ("0.weight",)


def test_it_is_small_and_comes_back_from_its_file(tmp_path):
    sketch = sketch_of(network().to(torch.bfloat16))
    save_sketch(sketch, tmp_path / "a")
    save_sketch(sketch_of(network().to(torch.bfloat16)), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = load_sketch(tmp_path / "a")
    assert again.shapes == sketch.shapes
    assert all(torch.equal(again.values[name], sketch.values[name]) for name in sketch.values)
    assert max(values.numel() for values in sketch.values.values()) == VALUES
    (tmp_path / "a").write_bytes(b"torn")
    with pytest.raises(InputError, match="does not hold a base sketch"):
        load_sketch(tmp_path / "a")


def test_every_parameter_of_the_network_itself_must_be_listed():
    sketch, net = sketch_of(network()), network()
    some = BaseSketch({"0.weight": sketch.shapes["0.weight"]}, {"0.weight": sketch.values["0.weight"]})
    assert find_differences(net, some).unlisted == ("0.bias", "1.weight", "1.bias", "2.weight", "2.bias")
    net.add_module("more", torch.nn.Linear(2, 2))
    assert find_differences(net, sketch).unlisted == ("more.weight", "more.bias")


ENTRY = ["a", [2]]


@pytest.mark.parametrize(
    ("note", "values", "complaint"),
    [
        ("[]", torch.zeros(0), "lists no parameters"),
        ("", torch.zeros(0), "is no JSON"),
        ("{}", torch.zeros(0), "lists no parameters"),
        ("[" * 100_000, torch.zeros(2), "deeper"),
        (json.dumps([ENTRY, ENTRY]), torch.zeros(4), "lists a parameter twice"),
        (json.dumps([["a", [0]]]), torch.zeros(0), "no name with a shape"),
        (json.dumps([["a", [-2]]]), torch.zeros(2), "no name with a shape"),
        (json.dumps([["a", [True]]]), torch.zeros(1), "no name with a shape"),
        (json.dumps([["a", [10**30]]]), torch.zeros(16), "no name with a shape"),
        (json.dumps([["a", ["2"]]]), torch.zeros(2), "no name with a shape"),
        (json.dumps([["a", 2]]), torch.zeros(2), "no name with a shape"),
        (json.dumps([[1, [2]]]), torch.zeros(2), "no name with a shape"),
        (json.dumps([["a"]]), torch.zeros(2), "no name with a shape"),
        (json.dumps([ENTRY]), torch.zeros(3), "its values are not those"),
        (json.dumps([ENTRY]), torch.zeros(2, 1), "its values are not those"),
        (json.dumps([ENTRY]), torch.zeros(2).bool(), "its values are not those"),
        (json.dumps([ENTRY]), torch.tensor([0.0, math.nan]), "holds NaN or infinite"),
    ],
)
def test_a_crafted_sketch_is_one_line(tmp_path, note, values, complaint):
    save_tensors({"values": values}, tmp_path / "a", note)
    with pytest.raises(InputError, match=f"does not hold a base sketch: .*{complaint}") as caught:
        load_sketch(tmp_path / "a")
    assert str(caught.value).isprintable()
