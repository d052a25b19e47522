"""One line of the results table, the same in the terminal, in metrics.json and in the report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, computed_field
from typing_extensions import TypedDict

from agd_core.evaluation.metrics.agreement import ACCURACY, CLIP_SCORE
from agd_core.evaluation.metrics.base import LARGEST, Number, Quantity, Score, Text
from agd_core.evaluation.metrics.distance import FD
from agd_core.evaluation.metrics.paired import PAIRED_MSE
from agd_core.evaluation.metrics.retrieval import NAME_TOP1

_Count = Annotated[int, Field(ge=1, le=int(LARGEST))]
_Positive = Annotated[Number, Field(gt=0)]


class _RecordedImages(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(strict=True, extra="allow")  # type: ignore[misc]

    images: _Count


class RecordedProtocol(TypedDict, total=False):
    """How numbers were made, see `agd_core.evaluation.protocol.Protocol`: types alone.

    What it lacks is for a comparison to say, see `agd_core.evaluation.protocol.NOT_RECORDED`.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="allow")  # type: ignore[misc]

    base_model: Text
    base_digest: Text
    guidance: dict[str, Any]
    extractor: Text
    extractor_sha256: Text | None
    distance: Text
    judge: Text
    judge_sha256: Text | None
    resize: Text
    reference: _RecordedImages | None
    images: _Count
    seed: Annotated[int, Field(ge=-(1 << 64), le=1 << 64)]
    scheduler: Text
    steps: _Count
    guidance_scale: Number
    settings: dict[str, Any]
    quantisation: Text
    prompts: Text | None
    libraries: dict[str, Text]


class Row(BaseModel):
    """What one method reached at one guidance scale, scheduler and step count; the same in memory and in JSON."""

    model_config = ConfigDict(strict=True, frozen=True)

    name: Text
    """How the report calls the method."""
    method: Text
    """ "none", the kind of the guidance rule ("cfg", "cfg-gate"), or that of a method."""
    guidance_scale: Number
    scheduler: Text
    steps: _Count
    teacher_scale: Number
    """Guidance scale of the teacher's samples that paired metrics compare with: the scale that was asked for."""
    nfe: _Positive
    """Network evaluations per image, counted."""
    images_per_second: _Positive
    """Denoising only, measured while the sample set was made, on the device that the protocol names."""
    adapter_parameters: Annotated[int, Field(ge=0, le=int(LARGEST))]
    adapter_percent: Annotated[Number, Field(ge=0)]
    """Of the base network's parameters."""
    adapter_bytes: Annotated[int, Field(ge=0, le=int(LARGEST))] | None = None
    """Of the adapter's weights file; None where there is none."""
    training_seconds: Annotated[Number, Field(ge=0)] | None = None
    """Wall time of the adapter's training, where it was measured, see `flows.stages.training_time`."""
    training_free: dict[str, Any] | None = None
    """Settings of the rule that stands in for the teacher's, where one does: it spares passes, nothing is trained."""
    scores: dict[Text, Score]
    """By the names of `agd_core.evaluation.metrics.quantities`."""
    protocol: RecordedProtocol

    @property
    def is_teacher(self) -> bool:
        """Whether it is the guided base model: guided by the teacher's rule, and nothing was trained."""
        return self.method != "none" and not self.adapter_parameters and self.training_free is None

    @computed_field
    def fd(self) -> float | None:
        """In JSON, beside the scores, for those who read no further; as are the next four."""
        return self.value("fd")

    @computed_field
    def fd_low(self) -> float | None:
        """Lower end of its interval."""
        return self.scores["fd"].low if "fd" in self.scores else None

    @computed_field
    def fd_high(self) -> float | None:
        """Upper end."""
        return self.scores["fd"].high if "fd" in self.scores else None

    @computed_field
    def accuracy(self) -> float | None:
        """See `fd`."""
        return self.value("accuracy")

    @computed_field
    def paired_mse(self) -> float | None:
        """See `fd`."""
        return self.value("paired_mse")

    def value(self, name: str) -> float | None:
        """A score's value; None where it was not measured or is no number."""
        return self.scores[name].value if name in self.scores else None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return self.model_dump(mode="json")


NO_NUMBER = "no number"
"""Where a metric was measured and came out as NaN or infinite; JSON holds null there."""
WARNED = " (!)"
"""Behind a number that a warning belongs to."""
_JUDGED = (ACCURACY, CLIP_SCORE, NAME_TOP1)
"""What a judge says of images, in the order of columns."""


@dataclass(frozen=True)
class Headline:
    """The rows as a table of texts, with a column for everything that a judge said of one of them."""

    headings: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Headline":
        """A dash stands where nothing was measured, see also `NO_NUMBER`; where no judge was asked, for accuracy."""
        judged = tuple(it for it in _JUDGED if any(it.name in row.scores for row in rows)) or (ACCURACY,)
        first = ("method", "scale", "NFE", f"{FD.heading} (95 % interval)")
        names = (*(it.heading for it in judged), PAIRED_MSE.heading)
        return cls((*first, *names, "images/s", "adapter parameters"), tuple(_cells(row, judged) for row in rows))


def _cells(row: Row, judged: Sequence[Quantity]) -> tuple[str, ...]:
    return (
        row.name,
        f"{row.guidance_scale:g}",
        f"{row.nfe:g}",
        _distance(row),
        *(_number(row, quantity) for quantity in judged),
        _number(row, PAIRED_MSE),
        f"{row.images_per_second:.1f}",
        f"{row.adapter_parameters:,} ({row.adapter_percent:.1f} %)" if row.adapter_parameters else "-",
    )


def warnings(rows: Sequence[Row]) -> list[str]:
    """Every warning about a number of these rows, once, in order."""
    return list(dict.fromkeys(said for row in rows for score in row.scores.values() for said in score.warnings))


def plain(value: Any) -> Any:
    """The same data for JSON, which has no NaN and no infinity: at any depth they become None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _distance(row: Row) -> str:
    text = _number(row, FD)
    if (score := row.scores.get(FD.name)) is None:
        return text
    if score.low is not None and score.high is not None:
        text = f"{text} ({FD.format.format(score.low)} to {FD.format.format(score.high)})"
    return text + WARNED if score.warnings else text


def _number(row: Row, quantity: Quantity) -> str:
    if (value := row.value(quantity.name)) is not None:
        return quantity.format.format(value)
    return NO_NUMBER if quantity.name in row.scores else "-"
