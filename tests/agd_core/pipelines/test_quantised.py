"""Quantised networks, by what the libraries' classes are like: none of these libraries is needed here."""

import pytest
import torch
from torch import Tensor, nn

import agd_core
from tests.agd_core.pipelines.stock import images, network_of, open_miniature


class Coded(Tensor):
    """A tensor without plain values, as torchao's and quanto's are: one can multiply by it and nothing else."""

    @staticmethod
    def __new__(cls, plain):
        return Tensor._make_wrapper_subclass(cls, plain.shape, dtype=plain.dtype, device=plain.device)

    def __init__(self, plain):
        self.scale = plain.detach().abs().max() / 127
        self.codes = (plain.detach() / self.scale).round().to(torch.int8)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.detach.default:
            return args[0]
        plain = [each.codes.float() * each.scale if isinstance(each, Coded) else each for each in args]
        if func in (torch.ops.aten.t.default, torch.ops.aten.addmm.default, torch.ops.aten.mm.default):
            return func(*plain, **(kwargs or {}))
        raise NotImplementedError(f"{func} on coded weights")


class Packed(nn.Module):
    """A linear layer with two four-bit numbers a byte in one column, as bitsandbytes' and GGUF's are."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
        self.scale = float(linear.weight.detach().abs().max() / 7)
        codes = (linear.weight.detach() / self.scale).round().add(8).to(torch.uint8).reshape(-1, 2)
        self.weight = nn.Parameter(codes[:, :1] * 16 + codes[:, 1:], requires_grad=False)

    def forward(self, hidden_states):
        codes = torch.cat([self.weight // 16, self.weight % 16], 1).float().sub(8) * self.scale
        weight = codes.reshape(self.out_features, self.in_features).to(hidden_states.dtype)
        return nn.functional.linear(hidden_states, weight, self.bias)


class Hidden(nn.Module):
    """A linear layer whose weights go by other names, as those of HQQ and of torch's own dynamic quantisation do."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.codes = nn.Parameter(torch.zeros(4, dtype=torch.uint8), requires_grad=False)
        self.__dict__["linear"] = linear

    def forward(self, hidden_states):
        return self.__dict__["linear"](hidden_states)


def code(linear):
    linear.weight = nn.Parameter(Coded(linear.weight), requires_grad=False)
    return linear


KINDS = {"coded": code, "packed": Packed, "hidden": Hidden}


def quantise(pipe, kind):
    """Every linear layer of the transformer blocks, which are most of a network."""
    blocks = [module for name, module in network_of(pipe).named_modules() if name.endswith(("attn2", "attn1", "attn"))]
    for block in blocks:
        for name in ("to_q", "to_k", "to_v"):
            setattr(block, name, KINDS[kind](getattr(block, name)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["tiny-sd", "tiny-sd3"])
def test_a_quantised_network_is_named_and_taken_as_a_sibling_in_every_order(name, kind, adapters):
    before, after = open_miniature(name), open_miniature(name)
    quantise(before, kind)
    unguided = images(before, 1.0)
    with pytest.raises(
        agd_core.InputError, match=r"this network is quantised, \d+ of \d+ parameters.*allow_sibling=True"
    ):
        agd_core.load_adapter(before, adapters(name))
    assert not network_of(before)._forward_pre_hooks
    agd_core.load_adapter(before, adapters(name), allow_sibling=True)
    guided = images(before)
    assert (guided - unguided).abs().max() > 1e-3
    agd_core.load_adapter(after, adapters(name))
    quantise(after, kind)
    assert torch.allclose(images(after), guided, atol=1e-5)


def test_what_is_not_quantised_is_still_compared(adapters):
    pipe = open_miniature("tiny-sd")
    quantise(pipe, "packed")
    pipe.unet.conv_out = nn.Identity()
    with pytest.raises(agd_core.InputError, match="lacks 2 of its"):
        agd_core.load_adapter(pipe, adapters("tiny-sd"), allow_sibling=True)
