"""What images are asked for: the classes of a model that has them, or a list of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from agd_core.basics.digest import digest
from agd_core.basics.errors import InputError
from agd_core.models.ask import Ask
from agd_core.models.condition import Condition
from agd_core.models.model import BaseModel


class EncodedPrompts:
    """Prompts as conditions in CPU memory; each is encoded once.

    The text encoders are asked for a whole list, and for the lists that will follow it, in one go.

    Args:
        base_model: whose text encoders are asked.
        prompts: all that will be asked for, in the order in which they will be.
    """

    def __init__(self, base_model: BaseModel, prompts: Sequence[str]) -> None:
        self._base_model = base_model
        self._prompts = tuple(dict.fromkeys(prompts))
        self._number = {prompt: number for number, prompt in enumerate(self._prompts)}
        self._encoded: Condition | None = None

    def condition(self, prompts: Sequence[str], of: Sequence[str]) -> Condition:
        """Prompts of a list, one row each, on the model's device."""
        encoded = self._encoded = self._reaching(min(self._number[prompt] for prompt in of))
        first = len(self._prompts) - len(encoded)
        rows = torch.tensor([self._number[prompt] - first for prompt in prompts])
        return encoded.take(rows).to(self._base_model.device)

    def _reaching(self, number: int) -> Condition:
        """What is encoded once this prompt is: some of the last of all prompts."""
        known = self._encoded
        first = len(self._prompts) - (len(known) if known else 0)
        if known and number >= first:
            return known
        missing = self._base_model.prompt_condition(self._prompts[number:first]).to(torch.device("cpu"))
        return Condition.cat([missing, known]) if known else missing


@dataclass(frozen=True)
class Subjects:
    """Subjects by number; image or trajectory i has subject `i % len(subjects)`."""

    base_model: BaseModel
    prompts: tuple[str, ...] = ()
    """Empty for a model with classes."""
    shared: EncodedPrompts | None = None
    """These prompts encoded, among others; None: for these subjects alone."""
    negative_prompt: str | None = None
    """What guidance leads away from; None: the model's own "no condition"."""

    @classmethod
    def of(
        cls,
        base_model: BaseModel,
        prompts: Sequence[str],
        setting: str,
        shared: EncodedPrompts | None = None,
        negative_prompt: str | None = None,
    ) -> "Subjects":
        """The subjects of a model.

        Args:
            base_model: who is asked.
            prompts: empty where nobody gave any.
            setting: where prompts are given, for messages.
            shared: see the field.
            negative_prompt: see the field.

        Raises:
            InputError: prompts for a model with classes, or none for one without.
        """
        if base_model.class_names and negative_prompt is not None:
            raise InputError("collect.negative_prompt: this base model takes classes, not prompts; leave it out")
        if base_model.class_names and prompts:
            raise InputError(f"{setting}: this base model takes classes, not prompts; leave it out")
        if not base_model.class_names and not prompts:
            raise InputError(f"{setting}: this base model takes prompts; give a file of them, or builtin:everyday-500")
        return cls(base_model, tuple(prompts), shared, negative_prompt)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _encoded(self) -> EncodedPrompts:
        return self.shared or EncodedPrompts(self.base_model, self.prompts)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names, or the prompts."""
        return self.prompts or self.base_model.class_names

    def condition(self, rows: Sequence[int]) -> Condition:
        """The condition of these subjects, one row each, on the model's device."""
        if self.prompts:
            return self._encoded.condition([self.prompts[row] for row in rows], self.prompts)
        return self.base_model.class_condition(rows)

    def null(self, rows: int) -> Condition:
        """What guidance leads away from, so many rows."""
        return self.base_model.null_condition(rows, self.negative_prompt)

    def ask(self, rows: Sequence[int], guidance_scale: float) -> Ask:
        """These subjects, one row each, at one guidance scale."""
        scale = torch.full((len(rows),), guidance_scale, device=self.base_model.device)
        return Ask(self.condition(rows), self.null(len(rows)), scale)

    def texts(self, rows: Sequence[int]) -> list[str]:
        """These subjects as one would write them to a text encoder."""
        return [self.prompts[row] if self.prompts else self.base_model.class_names[row] for row in rows]

    def strata(self, rows: Sequence[int]) -> list[int]:
        """What images are balanced over: their class; prompts are one random draw of all prompts, so one stratum."""
        return [0 if self.prompts else row for row in rows]

    def identity(self) -> str | None:
        """sha256 of the prompts; None for classes, which are the model's own."""
        return digest(list(self.prompts)) if self.prompts else None
