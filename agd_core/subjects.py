"""What images are asked for: the classes of a model that has them, or a list of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from agd_core.base_models.base import BaseModel
from agd_core.condition import Condition
from agd_core.digest import digest
from agd_core.errors import InputError


@dataclass(frozen=True)
class Subjects:
    """Subjects by number; image or trajectory i has subject `i % len(subjects)`."""

    base_model: BaseModel
    prompts: tuple[str, ...] = ()
    """Empty for a model with classes."""

    @classmethod
    def of(cls, base_model: BaseModel, prompts: Sequence[str] | None, setting: str) -> "Subjects":
        """The subjects of a model.

        Args:
            base_model: who is asked.
            prompts: None or empty where nobody gave any.
            setting: where prompts are given, for messages.

        Raises:
            InputError: prompts for a model with classes, or none for one without.
        """
        if base_model.class_names and prompts:
            raise InputError(f"{setting}: this base model takes classes, not prompts; leave it out")
        if not base_model.class_names and not prompts:
            raise InputError(f"{setting}: this base model takes prompts; give a file of them, or builtin:everyday-500")
        return cls(base_model, tuple(prompts or ()))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, or the prompts."""
        return self.prompts or self.base_model.class_names

    def condition(self, rows: Sequence[int]) -> Condition:
        """The condition of these subjects, one row each."""
        if self.prompts:
            return self.base_model.prompt_condition([self.prompts[row] for row in rows])
        return self.base_model.class_condition(rows)

    def texts(self, rows: Sequence[int]) -> list[str]:
        """These subjects as one would write them to a text encoder."""
        return [self.prompts[row] if self.prompts else self.base_model.class_names[row] for row in rows]

    def strata(self, rows: Sequence[int]) -> list[int]:
        """What images are balanced over: their class; prompts are one random draw of all prompts, so one stratum."""
        return [0 if self.prompts else row for row in rows]

    def identity(self) -> str | None:
        """sha256 of the prompts; None for classes, which are the model's own."""
        return digest(list(self.prompts)) if self.prompts else None
