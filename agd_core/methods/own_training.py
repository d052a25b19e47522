"""Where one method's training may differ from that of the others."""

from typing import Annotated, Any

from pydantic import Field

from agd_core.basics.config import Config

TrainingSteps = Annotated[int, Field(ge=1)]
BatchSize = Annotated[int, Field(ge=1)]
LearningRate = Annotated[float, Field(gt=0, le=1)]
TrainingSeed = Annotated[int, Field(ge=0)]


class OwnTraining(Config):
    """Settings of `agd_core.methods.trainer.TrainConfig` that one method has for itself; blank: as for all."""

    steps: TrainingSteps | None = None
    """Gradient steps."""
    batch_size: BatchSize | None = None
    """Stored pairs per step."""
    learning_rate: LearningRate | None = None
    """Peak learning rate."""
    seed: TrainingSeed | None = None
    """Seeds the initial weights and the order of training pairs."""

    def said(self) -> dict[str, Any]:
        """What is not blank."""
        return self.model_dump(exclude_none=True)
