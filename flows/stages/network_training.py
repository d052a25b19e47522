"""One network's training as an artefact: its weights and the loss of every step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from agd_core.basics.atomic import write_json
from agd_core.basics.checkpoint import Checkpoint, save_tensors
from agd_core.basics.seeding import derive_seed
from agd_core.methods.training_loop import Loop
from flows.workplace import Workplace
from storage.artefacts import Artefact

VERSION = 1
LOSSES, WEIGHTS = "losses.json", "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"

Start = Callable[[Checkpoint], tuple[Loop, nn.Module]]
"""Makes the run, which saves to this checkpoint, and the module whose weights are kept in the end."""


def trained_network(stage: str, identity: dict[str, Any], seed: int, start: Start, place: Workplace) -> Artefact:
    """Run one training to the end, from its last checkpoint if there is one.

    Args:
        stage: names the artefact.
        identity: plain data; everything that shapes the weights.
        seed: of the first weights.
        start: makes the run.
        place: where to work.

    Raises:
        Stopped: after a checkpoint, when asked to; run again to resume.
    """

    def work(artefact: Artefact) -> None:
        place.announce(f"{stage}: training")
        checkpoint = Checkpoint(artefact.path / CHECKPOINT, artefact.key)
        with place.on_device(f"train the {stage}"):
            torch.manual_seed(derive_seed(seed, stage))
            loop, model = start(checkpoint)
            losses = loop.run(place.progress(stage), place.should_stop)
        write_json(losses, artefact.path / LOSSES)
        save_tensors(model.state_dict(), artefact.path / WEIGHTS)
        checkpoint.remove()

    return place.produce(stage, {"version": VERSION, **identity}, work)
