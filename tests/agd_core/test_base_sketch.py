"""A sketch knows its network in every precision and tells every other one."""

import pytest
import torch

from agd_core.base_sketch import VALUES, compare, load_sketch, save_sketch, sketch_of
from agd_core.errors import InputError
from agd_core.seeding import generator

PRECISIONS = [torch.float32, torch.float16, torch.bfloat16]


def network():
    layers = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.Linear(64, 32), torch.nn.LayerNorm(32))
    with torch.no_grad():
        for name, parameter in layers.named_parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator("sketch", name)))
    return layers


def differences(net, sketch):
    found = compare(net, sketch)
    return found.missing + found.other_shape + found.other_values


@pytest.mark.parametrize("loaded", PRECISIONS)
@pytest.mark.parametrize("between", PRECISIONS)
@pytest.mark.parametrize("sketched", PRECISIONS)
def test_precision_does_not_matter_even_through_a_file_in_another_one(sketched, between, loaded):
    sketch = sketch_of(network().to(sketched))
    assert differences(network().to(between).to(loaded), sketch) == ()


def test_memory_format_and_further_parameters_do_not_matter():
    sketch, net = sketch_of(network()), network().to(memory_format=torch.channels_last)
    net.add_module("lora", torch.nn.Linear(2, 2))
    assert differences(net, sketch) == ()


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_moved_weights_are_named(dtype):
    sketch, net = sketch_of(network()), network()
    with torch.no_grad():
        net[1].weight.mul_(1.02)
    assert compare(net.to(dtype), sketch).other_values == ("1.weight",)


def test_a_little_everywhere_is_another_network():
    sketch, net = sketch_of(network()), network()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.view(-1)[:: parameter.numel() // 4].add_(1.0)
    assert len(compare(net, sketch).other_values) == len(sketch.shapes)


def test_missing_and_other_shapes_are_named():
    sketch, net = sketch_of(network()), network()
    net[0] = torch.nn.Conv2d(9, 8, 3)
    net[2] = torch.nn.Identity()
    found = compare(net, sketch)
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
