"""The base of every configuration: immutable, typed, refusing unknown names."""

from collections.abc import Callable, Collection
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator
from pydantic.fields import FieldInfo

from agd_core.basics.home import expand

_MOST_BITS = 63


class Strict(BaseModel):
    """Takes no value for one of another type, save a whole number for a float and a list for a tuple."""

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, settings: Any) -> Any:
        """YAML and JSON have no tuples, and whole numbers without end."""
        if not isinstance(settings, dict):
            return settings
        for name, value in settings.items():
            if isinstance(value, int) and value.bit_length() > _MOST_BITS:
                raise ValueError(f"{name} must be a number below 2**{_MOST_BITS}")
        return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


class Config(Strict):
    """Frozen settings; the docstring under a field is its description everywhere it is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def identity(self) -> dict[str, Any]:
        """The settings that shape a result, as plain data for a digest.

        Fields marked `json_schema_extra=NOT_IDENTITY` (names, batch sizes) are left out, and those marked
        `IDENTITY_IF_SET` where they have their default.
        """
        fields = {name: field for name, field in type(self).model_fields.items() if self._counts(name, field)}
        parts = {name: value for name in fields if isinstance(value := getattr(self, name), Config)}
        plain = self.model_dump(mode="json", include=set(fields))
        return plain | {name: part.identity() for name, part in parts.items()}

    def _counts(self, name: str, field: FieldInfo) -> bool:
        mark = field.json_schema_extra
        return mark != NOT_IDENTITY and (mark != IDENTITY_IF_SET or getattr(self, name) != field.default)


def one_of(known: Callable[[], Collection[str]]) -> Callable[[str], str]:
    """A check that a name is one of those that are known by then."""

    def check(name: str) -> str:
        if name not in known():
            raise ValueError(f"allowed are {', '.join(known())}")
        return name

    return check


NOT_IDENTITY: dict[str, Any] = {"identity": False}
"""Marks a field that changes how work is done and not what comes out."""
IDENTITY_IF_SET: dict[str, Any] = {"identity": "if set"}
"""Marks a field that came later: at its default, results have the identity that they had before."""

BUILTIN = "builtin:"
"""Begins the names of what ships with this package."""


def _absolute(place: str) -> str:
    return place if place.startswith(BUILTIN) else str(expand(place).absolute())


Place = Annotated[str, AfterValidator(_absolute)]
"""builtin:NAME, or files as an absolute path or pattern, so that they are the same from everywhere."""
