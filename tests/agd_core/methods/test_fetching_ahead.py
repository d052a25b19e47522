"""The next step's pairs are read while this one runs; what goes wrong with them belongs to the next step."""

from dataclasses import dataclass, field

import pytest

from agd_core.basics.checkpoint import Checkpoint
from agd_core.methods import OffsetConfig
from agd_core.methods.trainer import TrainConfig, Training
from benchmarks.training_speed import MemoryReader


@dataclass(frozen=True)
class Breaking(MemoryReader):
    """Its third batch cannot be read."""

    reads: list = field(default_factory=list)

    def read(self, pairs):
        self.reads.append(pairs)
        if len(self.reads) == 3:
            raise OSError("no such shard")
        return super().read(pairs)


def test_a_batch_that_cannot_be_read_costs_no_step_before_it(teacher, tmp_path):
    whole = MemoryReader.of(teacher)
    reader, done = Breaking(whole.plan, whole.latents), []
    trained, config = OffsetConfig(hidden_width=4).build(teacher.backbone), TrainConfig(steps=5, batch_size=2)
    training = Training(teacher, trained, reader, config)
    with pytest.raises(OSError, match="no such shard"):
        training.run(Checkpoint(tmp_path / "checkpoint", "test"), lambda step, of, note: done.append(step))
    assert done == [1, 2]
