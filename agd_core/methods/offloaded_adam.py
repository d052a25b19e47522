"""Adam that keeps nothing on the device: its moments, and the weights it steps, are in the CPU's memory.

It saves 8 bytes per trained parameter for a journey of gradients to the CPU and of weights back. See docs/memory.md for
what that is worth.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

_EPSILON = 1e-8


class OffloadedAdam(torch.optim.Optimizer):
    """Adam without weight decay; for parameters on the CPU every bit is that of `torch.optim.Adam(fused=True)`.

    Its state dict is Adam's, so a checkpoint of one can be resumed with the other. Whoever changes the parameters
    behind its back calls `load_state_dict`, as resuming does: it reads the weights anew.

    Args:
        parameters: float32, on any device.
        lr: learning rate.
        betas: decay rates of the two moments.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        super().__init__(list(parameters), {"lr": lr, "betas": betas})
        self._weights = self._read_weights()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step: gradients travel to the CPU, updated weights travel back."""
        for group in self.param_groups:
            given = [parameter for parameter in group["params"] if parameter.grad is not None]
            weights = [self._weights[parameter] for parameter in given]
            states = [self._state_of(parameter) for parameter in given]
            beta1, beta2 = group["betas"]
            adam(
                weights,
                [parameter.grad.to("cpu") for parameter in given],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=0.0,
                eps=_EPSILON,
                maximize=False,
            )
            for parameter, weight in zip(given, weights, strict=True):
                parameter.copy_(weight)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over Adam's state, on the CPU, and read the parameters as they are now."""
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self.state.clear()
        for index, entry in state_dict["state"].items():
            self.state[parameters[index]] = {name: value.to("cpu", copy=True) for name, value in entry.items()}
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({name: saved[name] for name in self.defaults if name in saved})
        self._weights = self._read_weights()

    def _read_weights(self) -> dict[Tensor, Tensor]:
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        return {parameter: parameter.detach().to("cpu", copy=True) for parameter in parameters}

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            weight = self._weights[parameter]
            moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
            self.state[parameter] = {"step": torch.tensor(0.0), **moments}
        state: dict[str, Tensor] = self.state[parameter]
        return state
