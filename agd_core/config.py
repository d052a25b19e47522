"""The base of every configuration: immutable, typed, refusing unknown names."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict


class Config(BaseModel):
    """Frozen settings; the docstring under a field is its description everywhere it is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def identity(self) -> dict[str, Any]:
        """The settings that shape a result, as plain data for a digest.

        Fields marked `json_schema_extra=NOT_IDENTITY` (names, batch sizes) are left out.
        """
        left_out = {name for name, field in type(self).model_fields.items() if field.json_schema_extra == NOT_IDENTITY}
        return self.model_dump(mode="json", exclude=left_out)


NOT_IDENTITY: dict[str, Any] = {"identity": False}
"""Marks a field that changes how work is done and not what comes out."""

BUILTIN = "builtin:"
"""Begins the names of what ships with this package."""


def _absolute(place: str) -> str:
    return place if place.startswith(BUILTIN) else str(Path(place).expanduser().absolute())


Place = Annotated[str, AfterValidator(_absolute)]
"""builtin:NAME, or files as an absolute path or pattern, so that they are the same from everywhere."""
