"""The authors' adapters, in our own words: what a training step of ours is timed against.

After the AGD paper (arXiv 2503.07274) and its code (github.com/cristianpjensen/agd, models/attention.py, additive.py,
adapters/adapter.py, utils/training_loop.py): a module stands in the place of each attention, calls it, and adds to its
answer. Each has its own encoders, and each asks the base for its timestep and condition embeddings anew.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from agd_core.models.ask import Ask
from agd_core.models.backbones import Backbone

_RATIO = 4
"""The guidance scale's MLP is so many times as wide inside."""
_TABLE_LENGTH, _MAX_PERIOD = 400, 10_000.0
"""Of the table of positions; the authors' 250 rows are too few for Stable Diffusion 3."""


def _mlp(inputs: int, inner: int, outputs: int, *between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inner), nn.ReLU(), *between, nn.Linear(inner, outputs))


class Fourier(nn.Module):
    """cos(2 pi (f x + phase)) of a scalar per row."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(width))
        self.register_buffer("phases", torch.rand(width))

    def forward(self, scalar: Tensor) -> Tensor:
        """`[batch]` -> `[batch, width]`."""
        return torch.cos(2 * torch.pi * (self.frequencies * scalar.float().unsqueeze(-1) + self.phases))


class Wrapped(nn.Module, ABC):
    """An attention and what is added to its answer, a module of its own in the network.

    Args:
        block: the attention.
        backbone: whose network it is of.
        hidden: the adapter's width H.
        inner: what stands between the two linear layers of the guidance scale's MLP, behind the ReLU.
    """

    def __init__(self, block: nn.Module, backbone: Backbone, hidden: int, *inner: nn.Module) -> None:
        super().__init__()
        self.block, self.backbone = block, backbone
        self.ask: Ask | None = None
        self.timestep: Tensor | None = None
        time_width, condition_width = backbone.embedding_widths
        mlp = _mlp(hidden, _RATIO * hidden, hidden, *inner)
        self.scale = nn.Sequential(Fourier(hidden), mlp, nn.LayerNorm(hidden))
        self.time = nn.Linear(time_width, hidden)
        self.condition = nn.Linear(condition_width, hidden)

    def embedded(self) -> tuple[Tensor, Tensor, Tensor]:
        """Guidance scale `[batch, H]`, timestep `[batch, H]`, condition `[batch, tokens, H]`."""
        if self.ask is None or self.timestep is None:
            raise TypeError("a call of the network needs to be told what it is asked for")
        time = self.time(self.backbone.embed_timestep(self.timestep))
        condition = self.condition(self.backbone.embed_condition(self.ask.condition))
        return self.scale(self.ask.guidance_scale), time, condition

    @abstractmethod
    def added(self, hidden_states: Tensor) -> Tensor:
        """`[batch, tokens or 1, width]`."""

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The attention's answer, the first of a joint attention's (image, text) pair changed."""
        output = self.block(*args, **kwargs)
        added = self.added(args[0] if args else kwargs["hidden_states"])
        if isinstance(output, tuple):
            return output[0] + added, *output[1:]
        output += added
        return output


class CrossAttention(Wrapped):
    """Their default for Stable Diffusion: hidden states attend to the embeddings, one head."""

    table: Tensor

    def __init__(self, block: nn.Module, backbone: Backbone, width: int, hidden: int) -> None:
        super().__init__(block, backbone, hidden)
        self.query = nn.Linear(width, hidden, bias=False)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        rates = torch.exp(-math.log(_MAX_PERIOD) * torch.arange(0, hidden, 2) / hidden)
        angles = torch.arange(_TABLE_LENGTH)[:, None] * rates
        self.register_buffer("table", torch.cat([angles.sin(), angles.cos()], dim=1), persistent=False)

    def added(self, hidden_states: Tensor) -> Tensor:
        """`[batch, tokens, width]`."""
        scale, time, condition = self.embedded()
        tokens = torch.cat([scale[:, None], time[:, None]], dim=1)
        tokens = torch.cat([tokens, condition], dim=1)
        query = self.query(hidden_states)
        tokens = tokens + self.table[: tokens.shape[1]]
        heads = (each[:, None] for each in (query, self.key(tokens), self.value(tokens)))
        attended = nn.functional.scaled_dot_product_attention(*heads, scale=query.shape[-1] ** -0.5)
        found: Tensor = self.out(attended[:, 0])
        return found


class Additive(Wrapped):
    """Their default for DiT: one vector for all tokens, from the sum of the embeddings."""

    def __init__(self, block: nn.Module, backbone: Backbone, width: int, hidden: int) -> None:
        super().__init__(block, backbone, hidden, nn.LayerNorm(_RATIO * hidden))
        self.out = _mlp(hidden, hidden, width, nn.LayerNorm(hidden))
        nn.init.zeros_(self.out[-1].weight)
        nn.init.zeros_(self.out[-1].bias)

    def added(self, hidden_states: Tensor) -> Tensor:
        """`[batch, 1, width]`."""
        scale, time, condition = self.embedded()
        found: Tensor = self.out(scale + time + condition.mean(dim=1)).unsqueeze(1)
        return found


KINDS: dict[str, type[CrossAttention] | type[Additive]] = {"cross-attention": CrossAttention, "offset": Additive}
"""By the names that our kinds of the same form have."""


class AuthorsStudent(nn.Module):
    """The base's network with their modules in the places of its attentions, see `installed`."""

    def __init__(self, backbone: Backbone, wrapped: list[Wrapped]) -> None:
        super().__init__()
        self.backbone, self.wrapped = backbone, nn.ModuleList(wrapped)

    def trained(self) -> list[nn.Parameter]:
        """What is trained, in the order of the sites; those of an attention are frozen."""
        return [each for each in self.wrapped.parameters() if each.requires_grad]

    def forward(self, latents: Tensor, timestep: Tensor, ask: Ask) -> Tensor:
        """The network's answer; every site is told first what it is asked for."""
        for site in self.wrapped:
            site.timestep, site.ask = timestep, ask
        return self.backbone.call(latents, timestep, ask.condition)


@contextmanager
def installed(backbone: Backbone, kind: str, hidden: int, seed: int = 0) -> Iterator[AuthorsStudent]:
    """The network with their adapters inside the block; the network itself after it.

    Args:
        backbone: frozen; its network is changed inside the block.
        kind: one of `KINDS`.
        hidden: the adapters' width H.
        seed: of their initial weights.
    """
    wrapped: dict[str, Wrapped] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for site in backbone.sites:
            block = backbone.network.get_submodule(site.path)
            wrapped[site.path] = KINDS[kind](block, backbone, site.width, hidden)
            wrapped[site.path].to(next(block.parameters()).device)
    try:
        for path, each in wrapped.items():
            backbone.network.set_submodule(path, each)
        yield AuthorsStudent(backbone, list(wrapped.values()))
    finally:
        for path, each in wrapped.items():
            backbone.network.set_submodule(path, each.block)


def authors_optimizer(
    parameters: list[nn.Parameter], steps: int, rate: float = 1e-4
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW without decay, a linear warm-up over a tenth of the steps, then a cosine."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    warm_up = max(1, steps // 10)
    rising = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-4, 1, warm_up)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - warm_up), eta_min=rate * 1e-4)
    return optimizer, torch.optim.lr_scheduler.SequentialLR(optimizer, [rising, falling], [warm_up])
