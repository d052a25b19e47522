"""Training checkpoints as one safetensors file: modules, optimiser, random state, step, data position, losses.

Nothing is pickled. The learning rate is a function of the step, see `agd_core.methods.training_loop`. The file is
replaced atomically, so a kill at any moment leaves the previous checkpoint.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from agd_core.basics.atomic import replacing
from agd_core.basics.digest import canonical_json
from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import open_tensors, parse_json, printable

_NOTE = "note"
_SYSTEM_CODE = re.compile(r"\(os error (\d+)\)")
"""How Rust ends the text of an error of the operating system."""
_RANDOM = "random"


def save_tensors(tensors: Mapping[str, Tensor], path: Path, note: str = "") -> None:
    """Write a safetensors file, whole or not at all, see `agd_core.basics.atomic.replacing`.

    Equal tensors and notes give equal bytes: the note is the only metadata entry, because safetensors writes several
    in random order.

    Raises:
        OSError: no space, no permission, a disk that fails; it names `path`.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial, system_errors():
        save_file(plain, partial, {_NOTE: note})


@contextmanager
def system_errors() -> Iterator[None]:
    """Turn what safetensors says of a full or failing disk into the error that the system gave."""
    try:
        yield
    except SafetensorError as error:
        if (code := _SYSTEM_CODE.search(str(error))) is None:
            raise
        number = int(code.group(1))
        raise OSError(number, os.strerror(number)) from error


def load_tensors(path: Path, most: int | None = None) -> tuple[dict[str, Tensor], str]:
    """Read a safetensors file: tensors by name, and the note it was saved with.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        InputError: no regular file, a larger one, or damaged.
    """
    with open_tensors(path, most) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, (file.metadata() or {}).get(_NOTE, "")  # noqa: SIM118


class Checkpoint:
    """The saved state of one training run.

    Args:
        path: the safetensors file; need not exist.
        digest: identity of the run's configuration; a file of another run is refused.
    """

    def __init__(self, path: Path, digest: str) -> None:
        self.path = path
        self.digest = digest

    def save(
        self,
        step: int,
        losses: list[float],
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        position: Mapping[str, Any] | None = None,
    ) -> None:
        """Write everything needed to continue after `step` finished steps; `position` says where in the data."""
        tensors = {
            f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()
        }
        tensors |= _optimizer_tensors(optimizer)
        tensors |= _random_state()
        tensors["losses"] = torch.tensor(losses, dtype=torch.float32)
        note = {"step": step, "digest": self.digest, "position": position}
        note["sha256"] = checkpoint_sum(tensors, note)
        save_tensors(tensors, self.path, json.dumps(note, sort_keys=True))

    def load(
        self,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        position_at: Callable[[int], Mapping[str, Any] | None] = lambda step: None,
    ) -> tuple[int, list[float]]:
        """Restore modules, optimiser and random state; return (finished steps, losses), (0, []) without a file.

        Args:
            modules: those that were saved; changed in place.
            optimizer: the one that was saved; changed in place.
            position_at: where in the data this run is after so many steps; must be where the saved run was.

        Raises:
            InputError: the file is damaged, or belongs to a run with another configuration or other data.
        """
        if not self.path.exists():
            return 0, []
        tensors, run = self._read()
        if run["digest"] != self.digest:
            raise InputError(f"checkpoint {self.path} belongs to run {run['digest'][:12]}, not {self.digest[:12]}")
        if run["position"] != position_at(run["step"]):
            raise InputError(f"checkpoint {self.path} stands elsewhere in the data: {run['position']}")
        try:
            _restore(tensors, modules, optimizer)
            return run["step"], tensors["losses"].tolist()
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            raise self._damaged() from error

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and note, proved to be what was saved."""
        try:
            tensors, note = load_tensors(self.path)
            run: dict[str, Any] = parse_json(note, self.path)
            whole = run.pop("sha256") == checkpoint_sum(tensors, run) and type(run["step"]) is int
            whole = whole and run.keys() >= {"digest", "position"}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
            raise self._damaged() from error
        if not whole:
            raise self._damaged()
        return tensors, run

    def _damaged(self) -> InputError:
        return InputError(f"checkpoint {printable(self.path)} is damaged; delete it to train from the start")

    def remove(self) -> None:
        """Delete the file, once the run's result is published."""
        self.path.unlink(missing_ok=True)


def checkpoint_sum(tensors: Mapping[str, Tensor], note: Mapping[str, Any]) -> str:
    """sha256 over the note, and over names, types, shapes and bytes of the tensors."""
    hasher = hashlib.sha256(canonical_json(dict(note)).encode())
    for name, tensor in sorted(tensors.items()):
        data = tensor.detach().cpu().contiguous()
        hasher.update(f"{name}{data.dtype}{tuple(data.shape)}".encode())
        hasher.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _random_state() -> dict[str, Tensor]:
    """State of torch's generators: of the CPU and of every GPU."""
    devices = {f"{_RANDOM}.cuda{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return {f"{_RANDOM}.cpu": torch.get_rng_state(), **devices}


def _restore(tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    for name, module in modules.items():
        prefix = f"{name}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    _restore_optimizer(optimizer, tensors)
    _restore_random_state(tensors)


def _restore_random_state(tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors[f"{_RANDOM}.cpu"])
    for index in range(torch.cuda.device_count()):
        if (state := tensors.get(f"{_RANDOM}.cuda{index}")) is not None:
            torch.cuda.set_rng_state(state, index)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        family, _, rest = name.partition(".")
        if family == "optimizer":
            index, _, key = rest.partition(".")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
