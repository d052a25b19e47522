"""DICE: the prompt is sharpened once, and one pass per step follows it as two would (AAAI 2026).

Zhou et al., https://arxiv.org/abs/2502.03726, code https://github.com/zju-pi/dice. A small network `r` looks at the
encoded prompt `c` and at the encoded null prompt. `c + alpha r(c, null)` then takes the prompt's place, the same in
every step: `r` knows neither latents nor timestep. Ours: `alpha = (scale - 1) / (trained - 1)`, so that the prompt is
unchanged at scale 1; the last layer begins at zero, the authors' at random; the loss is that of every method here, the
mean squared distance, theirs the absolute one.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import pad, relu, scaled_dot_product_attention

from agd_core.basics.errors import InputError
from agd_core.basics.seeding import derive_seed
from agd_core.methods.attached import Attached, GuidedCall
from agd_core.methods.base import MethodConfig, Pairs, Trained
from agd_core.models.backbones import Backbone
from agd_core.models.backbones.base import PROMPT
from agd_core.models.condition import MASK, Condition
from agd_core.models.denoiser import Denoiser

_PROMPT_MASK = PROMPT + MASK


class DiceConfig(MethodConfig):
    """The prompt's encoding is sharpened; only for networks that take prompts."""

    about: ClassVar[str] = (
        "It is DICE ([arXiv 2502.03726](https://arxiv.org/abs/2502.03726)): the encoded prompt is sharpened once, and "
        "the network, which stays as it is, is asked with it in one pass per step."
    )
    tags: ClassVar[tuple[str, ...]] = ("arxiv:2502.03726",)

    kind: Literal["dice"] = "dice"
    guidance_scale: float = Field(5.0, gt=1, le=1000)
    """The scale at which the sharpener's answer counts once (the authors': 5); at 1 it does not count."""
    hidden_width: int = Field(512, ge=1, le=8192)
    """Of the sharpener (the authors': 512)."""
    heads: int = Field(8, ge=1, le=512)
    """Of its attention (the authors': 8); they share the hidden width."""
    negative_weight: float = Field(0.0, ge=0, le=100)
    """The authors' beta for a negative prompt that training did not have: `c + alpha (r(c, n) - beta (n - null))`."""

    @model_validator(mode="after")
    def _equal_heads(self) -> "DiceConfig":
        if self.hidden_width % self.heads:
            raise ValueError(f"hidden_width {self.hidden_width} is no multiple of heads {self.heads}")
        return self

    def check_class(self, kind: type[Backbone]) -> None:
        """Refuse networks without prompts.

        Raises:
            InputError: such a network.
        """
        if PROMPT not in kind.encoded:
            raise InputError(f"methods: {self.kind} sharpens prompts, and a {kind.class_name} takes none: leave it out")

    def build(self, backbone: Backbone, seed: int = 0) -> "Dice":
        """A sharpener of prompts as wide as this network's.

        Raises:
            InputError: the network takes no prompts.
        """
        self.check_class(type(backbone))
        return Dice(self, backbone, seed)


class Sharpener(nn.Module):
    """`r(c, null)`: one linear layer with ReLU for both, attention of `c` to `null`, ReLU, a linear layer back.

    Args:
        width: of a prompt's tokens.
        hidden: of everything inside.
        heads: of the attention.
    """

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.enter = nn.Linear(width, hidden)
        self.query, self.key, self.value = (nn.Linear(hidden, hidden, bias=False) for _ in range(3))
        self.out = nn.Linear(hidden, hidden)
        self.leave = nn.Linear(hidden, width)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, prompt: Tensor, null: Tensor, counts: Tensor | None) -> Tensor:
        """What sharpens the prompt, `[batch, tokens, width]`.

        Args:
            prompt: `[batch, tokens, width]`.
            null: `[batch, null tokens, width]`.
            counts: `[batch, null tokens]`, bool: which of them do; None: all.
        """
        ours, others = relu(self.enter(prompt)), relu(self.enter(null))
        parts = self.query(ours), self.key(others), self.value(others)
        query, key, value = (each.unflatten(-1, (self.heads, -1)).transpose(1, 2) for each in parts)  # [B, h, T, w]
        mask = None if counts is None else counts[:, None, None]
        attended = scaled_dot_product_attention(query, key, value, mask)
        sharpening: Tensor = self.leave(relu(self.out(attended.transpose(1, 2).flatten(2))))
        return sharpening


class NullPrompt(nn.Module):
    """The null condition of training, saved with what was trained: a pipeline that makes one pass encodes none.

    Its buffers are named as the condition's tensors; they have no tokens before training.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        shapes = {PROMPT: (0, backbone.embedding_widths[1]), _PROMPT_MASK: (0,)}
        for name, shape in shapes.items():
            if name in backbone.encoded:
                self.register_buffer(name, torch.zeros(shape))

    def __len__(self) -> int:
        """Its tokens."""
        return len(self.get_buffer(PROMPT))

    def remember(self, null: Condition) -> None:
        """Keep the first row of the first null condition."""
        if not len(self):
            for name, _ in list(self.named_buffers()):
                self.register_buffer(name, null[name][0].detach().float().clone())

    def repeated(self, rows: int) -> Condition:
        """So many rows.

        Raises:
            InputError: there is none yet.
        """
        if not len(self):
            raise InputError("this sharpener of prompts was not trained, so it knows no null prompt to go by")
        return Condition(**{name: each.expand(rows, *each.shape) for name, each in self.named_buffers()})

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *more: Any) -> None:
        """Have as many tokens as what is loaded."""
        for name, buffer in list(self.named_buffers()):
            if (stored := state_dict.get(f"{prefix}{name}")) is not None:
                self.register_buffer(name, buffer.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *more)


class Dice(Trained):
    """A sharpener, and the null prompt that it was trained against.

    Args:
        config: sizes and scale.
        backbone: the network, maybe on the meta device.
        seed: of the initial weights.
    """

    def __init__(self, config: DiceConfig, backbone: Backbone, seed: int) -> None:
        super().__init__(config)
        self._scale, self._beta = config.guidance_scale, config.negative_weight
        self.null = NullPrompt(backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "dice"))
            self.sharpener = Sharpener(backbone.embedding_widths[1], config.hidden_width, config.heads)

    def attach(self, network: nn.Module) -> "AttachedSharpener":
        """Have the network called with the sharpened prompt."""
        return AttachedSharpener(network, self.sharpened)

    def loss(self, student: Denoiser, batch: Pairs) -> Tensor:
        """As every method's; the first batch's null prompt is kept."""
        self.null.remember(batch.ask.null)
        return super().loss(student, batch)

    def sharpened(self, call: GuidedCall) -> Tensor:
        """The call's prompt as the network shall see it, `[batch, tokens, width]`, in its own precision.

        Raises:
            InputError: nobody tells a null prompt, or one of other tokens than the negative weight can compare.
        """
        condition, null, start = call.ask.condition, call.ask.null, call.backbone.start_tokens
        null = null if PROMPT in null else self.null.repeated(len(condition))
        prompt, against = condition[PROMPT].float(), null[PROMPT].float()
        counts = null[_PROMPT_MASK].bool() if _PROMPT_MASK in null else None
        change = self.sharpener(prompt[:, start:], against, counts)
        if self._beta and len(self.null):
            change = change - self._beta * self._new(against, prompt.shape[1])[:, start:]
        sharp = prompt + self._alpha(call)[:, None, None] * pad(change, (0, 0, start, 0))
        return sharp.to(condition[PROMPT].dtype)

    def _alpha(self, call: GuidedCall) -> Tensor:
        """`[batch]`, 0 without guidance."""
        excess = call.ask.guidance_scale - 1
        return (excess.clamp(min=0) if call.off_at_one else excess) / (self._scale - 1)

    def _new(self, negative: Tensor, tokens: int) -> Tensor:
        """How a negative prompt differs from the null prompt of training, for a prompt of so many tokens."""
        null = self.null.get_buffer(PROMPT)
        if not tokens == len(null) == negative.shape[1]:
            raise InputError(
                f"dice: with negative_weight prompts have the {len(null)} tokens of training, not {tokens} and "
                f"{negative.shape[1]} for the negative one"
            )
        return negative - null


class AttachedSharpener(Attached):
    """Changes the prompt on its way into a network, by a forward pre-hook.

    Args:
        network: it takes prompts.
        sharpened: the prompt of a call as the network shall see it.
    """

    def __init__(self, network: nn.Module, sharpened: Callable[[GuidedCall], Tensor]) -> None:
        self._sharpened = sharpened
        self._handle = network.register_forward_pre_hook(self.replace, with_kwargs=True)

    def encode(self, call: GuidedCall) -> Tensor:
        """The sharpened prompt."""
        return self._sharpened(call)

    @torch.no_grad()
    def steps(self, call: GuidedCall) -> Iterator[GuidedCall]:
        """All steps have the same prompt, which is sharpened once."""
        call.have_codes(self.encode)
        yield from super().steps(call)

    def detach(self) -> None:
        """Remove the hook."""
        self._handle.remove()

    def replace(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Forward pre-hook: the arguments, with the sharpened prompt in place of the prompt."""
        if (call := self.call) is None:
            return None
        call.have_codes(self.encode)
        named, prompt = call.backbone.named(args, kwargs), call.codes
        if prompt.dtype is not (dtype := named[PROMPT].dtype):  # no work where it has: nothing is compiled for it then
            prompt = prompt.to(dtype)
        return (), named | {PROMPT: prompt}
