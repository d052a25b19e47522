"""The whole network is trained to answer as the guided teacher, told the guidance scale (guided distillation).

Meng et al., https://arxiv.org/abs/2210.03142, stage 1: the student begins as a copy of the conditional model, and an
embedding of w = guidance_scale - 1 joins that of the timestep. The layout is diffusers' own, `time_cond_proj_dim`: a
linear layer without bias from the scale's sinusoids to the timestep's, here in every class of networks. It begins at
zero, so the student begins as the base, bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from agd_core.basics.errors import InputError
from agd_core.methods.attached import Attached, GuidedCall
from agd_core.methods.base import MethodConfig, Trained
from agd_core.models.ask import Ask
from agd_core.models.backbones import Backbone
from agd_core.models.denoiser import Answer, Denoiser, Latents, PerRow, Prediction
from agd_core.models.doors.guidance_embedding import encode
from agd_core.models.model import BaseModel

SCALE_WIDTH = 512
"""Sinusoids of the guidance scale, as diffusers' pipelines make them."""


class FinetuneConfig(MethodConfig):
    """The whole network, copied and trained, with an embedding of the guidance scale."""

    about: ClassVar[str] = (
        "The whole network was trained, told the guidance scale by an embedding beside the timestep's "
        "([arXiv 2210.03142](https://arxiv.org/abs/2210.03142), stage 1)."
    )
    tags: ClassVar[tuple[str, ...]] = ("arxiv:2210.03142",)
    in_pipelines: ClassVar[bool] = False
    relation: ClassVar[Literal["adapter", "finetune"]] = "finetune"

    kind: Literal["finetune"] = "finetune"
    base_at_one: bool = True
    """Without guidance, at a scale of 1 or less, the base itself answers, exactly; false: the trained network does."""

    def build(self, backbone: Backbone, seed: int = 0) -> "FineTuned":
        """A copy of the network; nothing of it is random.

        Raises:
            InputError: the network takes a guidance embedding already, or no embedder of its timestep is known.
        """
        return FineTuned(self, backbone)

    def everywhere(self) -> MethodConfig:
        """With the trained network alone."""
        return self.model_copy(update={"base_at_one": False})


class FineTuned(Trained):
    """A network of its own under its component's name ("unet", "transformer"), with the base's names and weights.

    Frozen, it takes on the precision of the base that it is installed beside; in training its weights are float32.
    """

    def __init__(self, config: FinetuneConfig, backbone: Backbone) -> None:
        super().__init__(config)
        self._base_at_one = config.base_at_one
        self._embedders = _embedder_paths(backbone)
        network = _copy_of(backbone.network, self._embedders)
        self.add_module(backbone.component, network)
        self._backbone = type(backbone)(network)

    def runs_in(self, model: BaseModel) -> BaseModel:
        """The base with this network in place of its own."""
        network = self._backbone.network
        if not any(parameter.requires_grad for parameter in self.parameters()):
            _set_tensors(network, lambda _, tensor: tensor.to(_precision(tensor, model.dtype)))
        _take_tables(network, model.network)
        run = copy(model)
        run.backbone = self._backbone
        return run

    def attach(self, network: nn.Module) -> Attached:
        """Give the scale to a network that has its projection; that of a stock pipeline has none.

        Raises:
            InputError: this network has none.
        """
        embedders: list[Any] = [network.get_submodule(path) for path in self._embedders]
        if any(embedder.cond_proj is None for embedder in embedders):
            return super().attach(network)
        return _ScaleEmbedding(embedders)

    @contextmanager
    def installed(self, model: BaseModel, checkpointing: bool = False) -> Iterator[Denoiser]:
        """The student inside the block, see `Trained.installed`; it has its own weights beside the base's."""
        with super().installed(model, checkpointing) as student:
            yield _BaseAtOne(student, model) if self._base_at_one else student


class _ScaleEmbedding(Attached):
    """Hands the embedding of the call's guidance scales to embedders of the timestep."""

    def __init__(self, embedders: Iterable[nn.Module]) -> None:
        self._embedding: Tensor | None = None
        self._handles = [each.register_forward_pre_hook(self.tell) for each in embedders]

    def encode(self, call: GuidedCall) -> Tensor:
        """`[batch, 512]`."""
        return encode(call.ask.guidance_scale, SCALE_WIDTH)

    def steps(self, call: GuidedCall) -> Iterator[GuidedCall]:
        """All steps have the same scales."""
        call.have_codes(self.encode)
        return super().steps(call)

    def begin(self, call: GuidedCall | None) -> None:
        """Tell this call's scales."""
        self.call = call
        self._embedding = None if call is None else call.codes

    def detach(self) -> None:
        """Remove every hook."""
        for handle in self._handles:
            handle.remove()

    def tell(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor, Tensor] | None:
        """Forward pre-hook: the timestep's sinusoids, and beside them the scale's."""
        return None if self._embedding is None else (args[0], self._embedding.to(args[0].dtype))


_Share = tuple[slice | Tensor, Denoiser]
"""Rows of a batch, and who answers for them."""


@dataclass(frozen=True)
class _BaseAtOne(Denoiser):
    """The student, and the base in rows without guidance; while gradients are asked for, the student in all rows."""

    student: Denoiser
    base: BaseModel

    @property
    def network_evaluations(self) -> int:
        """Rows that went through either network."""
        return self.student.network_evaluations + self.base.network_evaluations

    def predict(self, latents: Latents, timestep: PerRow, ask: Ask) -> Prediction:
        """The prediction, in one network evaluation per row."""
        if torch.is_grad_enabled():
            return self.student.predict(latents, timestep, ask)
        shares = self._shares(ask)
        answers = [partial(each.predict, timestep=timestep[rows], ask=ask[rows]) for rows, each in shares]
        return _joined(latents, shares, answers)

    def steps(self, timesteps: Tensor, ask: Ask) -> Iterator[Answer]:
        """The same for a sampler's steps."""
        shares = self._shares(ask)
        for answers in zip(*(each.steps(timesteps, ask[rows]) for rows, each in shares), strict=True):
            yield partial(_joined, shares=shares, answers=answers)

    def _shares(self, ask: Ask) -> list[_Share]:
        guided = ask.guidance_scale > 1
        if guided.all():
            return [(slice(None), self.student)]
        if not guided.any():
            return [(slice(None), self.base)]
        return [(guided.nonzero().flatten(), self.student), ((~guided).nonzero().flatten(), self.base)]


def _joined(latents: Latents, shares: Sequence[_Share], answers: Sequence[Answer]) -> Prediction:
    """Every share's answer in its rows."""
    parts = [answer(latents[rows]) for (rows, _), answer in zip(shares, answers, strict=True)]
    whole = parts[0].new_empty(len(latents), *parts[0].shape[1:])
    for (rows, _), part in zip(shares, parts, strict=True):
        whole[rows] = part
    return whole


def _embedder_paths(backbone: Backbone) -> tuple[str, ...]:
    """Paths of what embeds the timestep; a DiT of diffusers has one in every block.

    Raises:
        InputError: none is known, or one takes a guidance embedding already.
    """
    modules = {path: it for path, it in backbone.network.named_modules() if _ends_in(path, backbone.timestep_embedder)}
    found = {path: module for path, module in modules.items() if hasattr(module, "cond_proj")}
    if not found:
        raise InputError(f"methods: no embedder of the timestep is known in a {backbone.class_name}")
    if any(module.cond_proj is not None for module in found.values()):
        raise InputError(f"methods: this {backbone.class_name} takes a guidance embedding: it is distilled already")
    return tuple(found)


def _ends_in(path: str, name: str) -> bool:
    return path.rpartition(".")[2] == name


def _copy_of(network: Any, embedders: Iterable[str]) -> Any:
    """A network of the same class and weights, float32, with zero projections of the guidance scale.

    It is made where tensors are made now (`torch.device`), of weights on the meta device there too.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        mine = type(network).from_config(network.config)
        for path in embedders:
            mine.set_submodule(path, _told_the_scale(mine.get_submodule(path)))
    with torch.no_grad():
        _set_tensors(mine, lambda name, tensor: _first_values(network, name, tensor.shape))
    return mine.eval()


def _told_the_scale(embedder: Any) -> nn.Module:
    """An embedder of the same shape that has the projection.

    Raises:
        InputError: it is none of diffusers' plain ones.
    """
    from diffusers.models.embeddings import TimestepEmbedding

    if embedder.post_act is not None:
        raise InputError("methods: finetune knows no embedder of the timestep with an activation behind it")
    first, last = embedder.linear_1, embedder.linear_2
    new: nn.Module = TimestepEmbedding(
        first.in_features,
        first.out_features,
        out_dim=last.out_features,
        cond_proj_dim=SCALE_WIDTH,
        sample_proj_bias=first.bias is not None,
    )
    new.set_submodule("act", embedder.act)
    return new


def _first_values(network: nn.Module, name: str, shape: torch.Size) -> Tensor:
    path, _, last = name.rpartition(".")
    if path.endswith("cond_proj"):
        return torch.zeros(shape)
    given: Tensor = getattr(network.get_submodule(path), last)
    return torch.empty(shape, dtype=_precision(given, torch.float32)).copy_(given)


def _precision(tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    """The given one for numbers, its own for what counts or chooses."""
    return dtype if tensor.is_floating_point() else tensor.dtype


def _set_tensors(network: nn.Module, value: Callable[[str, Tensor], Tensor]) -> None:
    """Put other tensors in the places of all parameters and buffers, one after the other."""
    stored = set(network.state_dict())  # names alone: what is replaced shall be freed
    for name in [name for name, _ in network.named_parameters()]:
        module, last = _place(network, name)
        old = module.get_parameter(last)
        module.register_parameter(last, nn.Parameter(value(name, old), old.requires_grad))
    for name in [name for name, _ in network.named_buffers()]:
        module, last = _place(network, name)
        module.register_buffer(last, value(name, module.get_buffer(last)), persistent=name in stored)


def _place(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that a tensor belongs to, and what it is called there."""
    path, _, last = name.rpartition(".")
    return network.get_submodule(path), last


def _take_tables(network: nn.Module, base: nn.Module) -> None:
    """Have the base's buffers that no file holds, such as tables of positions."""
    stored, dtype = network.state_dict().keys(), next(network.parameters()).dtype
    for name, buffer in base.named_buffers():
        if name not in stored:
            module, last = _place(network, name)
            module.register_buffer(last, buffer.to(_precision(buffer, dtype)), persistent=False)
