"""What sits at one site of an adapter."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

HiddenStates = Float[Tensor, "batch tokens width"]
Codes = Float[Tensor, "batch code_tokens hidden"]


class AdapterLayer(nn.Module, ABC):
    """Computes what is added to the output of one module of the network."""

    @abstractmethod
    def forward(self, hidden_states: HiddenStates, codes: Codes) -> Tensor:
        """Offset `[batch, tokens, width]` (or `[batch, 1, width]`) from the module's input and the encoded call."""
