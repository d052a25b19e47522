"""How much memory training and sampling take, known before there are weights or a GPU.

The real step runs on fake tensors (PyTorch's meta device behind the CPU's rules), which have shapes and no memory, and
every storage is followed from birth to death. Attention is the CPU's flash kernel, which makes what the fused kernels
of CUDA make: output and log-sum-exp, no matrix of all tokens by all tokens. What comes out is what CUDA's allocator
would hand out: without the CUDA context, the scratch space of kernels, and fragmentation. docs/memory.md says how far
it was verified.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from agd_core.guidance import GuidanceConfig, GuidedDenoiser
from agd_core.memory.fake_model import FakeModel
from agd_core.memory.peak_memory import LivingTensors
from agd_core.memory.sized import Sized
from agd_core.methods import MethodConfig, Pairs, Trained
from agd_core.models.ask import Ask
from agd_core.models.autoencoder import PIXELS_TOGETHER
from agd_core.models.condition import Condition
from agd_core.models.denoiser import Denoiser

NOTE = (
    "estimated on the meta device: bytes that the allocator hands out, without CUDA context, kernels' workspaces and "
    "fragmentation; not verified on a GPU"
)
GIB = 1 << 30
BASE, ADAPTER, CONDITIONS = "base weights", "adapter weights", "conditions"
GRADIENTS, OPTIMIZER, VAE, ENCODERS = "gradients", "optimizer state", "VAE weights", "text encoder weights"


@dataclass(frozen=True)
class MemoryEstimate:
    """The most bytes that live at a time, and what they are at that moment."""

    peak_bytes: int
    parts: Mapping[str, int]

    @property
    def gib(self) -> float:
        """The peak in GiB."""
        return self.peak_bytes / GIB

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"peak_bytes": self.peak_bytes, "peak_gib": round(self.gib, 3), "parts_bytes": dict(self.parts)}


def training_memory(
    sized: Sized,
    method: MethodConfig,
    batch: int,
    *,
    activation_checkpointing: bool = False,
    offloaded_optimizer: bool = False,
) -> MemoryEstimate:
    """Peak of one training step of a method, in the steady state, where the optimizer has its moments.

    Args:
        sized: the base model.
        method: what is trained.
        batch: pairs per step.
        activation_checkpointing: compute activations again in the backward pass instead of keeping them.
        offloaded_optimizer: `agd_core.methods.offloaded_adam`, whose moments are not on the device.
    """
    network = sized.network()
    with _fakes(), sized.living() as living:
        living.name(_weights(network.to_empty(device="cpu")), BASE)
        model = FakeModel(sized, network)
        trained = method.build(model.backbone)
        living.name(_weights(trained), ADAPTER)
        condition = sized.conditions(batch)
        living.name(condition.tensors().values(), CONDITIONS)
        for parameter in trained.parameters():
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                lambda p: living.name([p.grad], GRADIENTS)
            )
        optimizer = None if offloaded_optimizer else _with_moments(living, trained, sized)
        with trained.installed(model, activation_checkpointing) as student:
            trained.loss(student, _stored_pairs(sized, condition)).backward()  # type: ignore[no-untyped-call]
        del optimizer
    return MemoryEstimate(living.peak, living.parts)


def sampling_memory(
    sized: Sized, batch: int, guidance: GuidanceConfig | None = None, method: MethodConfig | None = None
) -> MemoryEstimate:
    """Peak of one step of sampling or collecting.

    Args:
        sized: the base model.
        batch: images.
        guidance: of a teacher; None: of the bare model, or of a student.
        method: of a student.
    """
    network = sized.network()
    with _fakes(), sized.living() as living, torch.no_grad():
        living.name(_weights(network.to_empty(device="cpu")), BASE)
        model = FakeModel(sized, network)
        if guidance is not None:
            _sample_once(sized, GuidedDenoiser(model, guidance.everywhere()), batch)
        elif method is None:
            _sample_once(sized, model, batch)
        else:
            trained = method.everywhere().build(model.backbone).requires_grad_(False)
            living.name(_weights(trained), ADAPTER)
            living.reset()
            with trained.installed(model) as student:
                living.name(_weights(trained), ADAPTER)
                _sample_once(sized, student, batch)
    return MemoryEstimate(living.peak, living.parts)


def decoding_memory(sized: Sized, batch: int) -> MemoryEstimate:
    """Peak of decoding in float32, in pieces of a bounded size, while the network stays on the device."""
    pixels = (sized.latent_side * sized.model.latent_factor) ** 2
    rows = min(batch, max(1, PIXELS_TOGETHER // pixels))
    network, vae = sized.network(), sized.model.vae()
    with _fakes(), sized.living() as living, torch.no_grad():
        living.name(_weights(network.to_empty(device="cpu")), BASE)
        living.name(_weights(vae.to_empty(device="cpu")), VAE)
        vae.decode(sized.latents(rows)).sample.clamp(-1, 1)
    return MemoryEstimate(living.peak, living.parts)


def encoding_memory(sized: Sized) -> MemoryEstimate:
    """Weights of network and text encoders together, as they lie on the device while prompts are encoded.

    Activations of the text encoders are not counted.
    """
    encoders = [encoder.to(sized.dtype) for encoder in sized.model.text_encoders()]
    network = sized.network()
    living = sized.living()
    living.name(_weights(network), BASE)
    living.name([tensor for encoder in encoders for tensor in _weights(encoder)], ENCODERS)
    return MemoryEstimate(living.peak, living.parts)


def _fakes() -> FakeTensorMode:
    """Tensors that are made inside the block have no memory."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def _with_moments(living: LivingTensors, trained: Trained, sized: Sized) -> torch.optim.Optimizer:
    """An optimizer that has its moments, after a step with all gradients there; the gradients are gone."""
    optimizer = torch.optim.Adam(trained.parameters(), fused=True)
    sums = [parameter.sum() for parameter in trained.parameters()]
    torch.stack(sums).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    living.name((tensor for state in optimizer.state.values() for tensor in state.values()), OPTIMIZER)
    living.reset()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return optimizer


def _stored_pairs(sized: Sized, condition: Condition) -> Pairs:
    """As the trainer reads them, in float32."""
    rows = len(condition)
    pairs = sized.latents(rows, 1 + sized.slots)
    return Pairs(pairs[:, 0], _scalars(rows), Ask(condition, condition, _scalars(rows)), pairs[:, 1:].flatten(1, 2))


def _sample_once(sized: Sized, denoiser: Denoiser, rows: int) -> None:
    ask = Ask(sized.conditions(rows), sized.conditions(rows), _scalars(rows))
    denoiser.predict(sized.latents(rows), _scalars(rows), ask)


def _scalars(rows: int) -> Tensor:
    return torch.empty(rows)


def _weights(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
