"""What a row of a metrics.json may hold: types, and numbers that a measurement can give.

The file may have been made by anybody, so nothing in it is believed before it was looked at here.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from agd_core.config_problems import first_problem
from agd_core.errors import InputError
from agd_core.metrics import Better, quantities
from agd_core.safe_files import printable

_LARGEST = 1e12
_Number = Annotated[float, Field(allow_inf_nan=False, ge=-_LARGEST, le=_LARGEST)]
_Positive = Annotated[float, Field(allow_inf_nan=False, gt=0, le=_LARGEST)]
_Error = Annotated[float, Field(allow_inf_nan=False, ge=0, le=_LARGEST)]
_Count = Annotated[int, Field(ge=1, le=int(_LARGEST))]
_Text = Annotated[str, Field(max_length=4096)]


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True)


class _StoredScore(_Stored):
    value: _Number | None
    better: Better
    standard_error: _Error | None
    low: _Number | None
    high: _Number | None
    warnings: list[_Text]


class _StoredReference(_Stored):
    images: _Count = 1


class _StoredProtocol(_Stored):
    """Types alone: what a protocol lacks is for the comparison to say, see `agd_core.protocol.NOT_RECORDED`."""

    base_model: _Text = ""
    base_digest: _Text = ""
    guidance: dict[str, Any] = {}
    extractor: _Text = ""
    extractor_sha256: _Text | None = None
    distance: _Text = ""
    judge: _Text = ""
    judge_sha256: _Text | None = None
    resize: _Text = ""
    reference: _StoredReference | None = None
    images: _Count = 1
    seed: Annotated[int, Field(ge=-(1 << 64), le=1 << 64)] = 0
    scheduler: _Text | None = None
    steps: _Count | None = None
    guidance_scale: _Number | None = None
    settings: dict[str, Any] = {}
    quantisation: _Text = ""
    prompts: _Text | None = None
    libraries: dict[str, _Text] = {}


class _StoredRow(_Stored):
    name: _Text
    method: _Text
    guidance_scale: _Number
    teacher_scale: _Number
    scheduler: _Text
    steps: _Count
    nfe: _Positive
    adapter_parameters: Annotated[int, Field(ge=0, le=int(_LARGEST))]
    scores: dict[str, _StoredScore]
    protocol: _StoredProtocol


_ROWS = TypeAdapter(list[_StoredRow])


def check_rows(rows: Sequence[Any]) -> None:
    """Refuse rows that no run writes.

    Raises:
        InputError: names the row, the field and what is wrong.
    """
    try:
        stored = _ROWS.validate_python(list(rows))
    except ValidationError as error:
        raise InputError(f"rows.{first_problem(error, list[_StoredRow])}") from error
    for place, row in enumerate(stored):
        for problem in _contradictions(row):
            raise InputError(f"rows.{place} ({printable(row.name)}): {problem}")


def _contradictions(row: _StoredRow) -> Iterator[str]:
    said = (("steps", row.steps), ("scheduler", row.scheduler), ("guidance_scale", row.teacher_scale))
    for field, value in said:
        if (recorded := getattr(row.protocol, field)) is not None and recorded != value:
            yield f"protocol.{field} is {recorded!r}, the row has {value!r}"
    for name, score in row.scores.items():
        if score.low is not None and score.high is not None and score.low > score.high:
            yield f"scores.{printable(name)}: low {score.low:g} is above high {score.high:g}"
        known = quantities().get(name)
        if known and score.value is not None and not known.least <= score.value <= known.most:
            yield f"scores.{name}.value is {score.value:g}, which no {name} can be"
