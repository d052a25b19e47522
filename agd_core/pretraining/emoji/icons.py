"""Reading an icon set in Iconify's JSON: drawings, other names of them, categories."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable, read_json

_MOST_BYTES = 256 << 20
_MOST_DRAWING = 1 << 20
"""Characters of one drawing; the longest has 400,000."""
_Key = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=128)]
"""Iconify's rule for names."""
_Length = Annotated[float, Field(gt=0, le=1e6)]
_Offset = Annotated[float, Field(ge=-1e6, le=1e6)]


class _Box(BaseModel):
    left: _Offset | None = None
    top: _Offset | None = None
    width: _Length | None = None
    height: _Length | None = None


class Icon(_Box):
    """A drawing, with the box that it lies in where that is not the set's."""

    body: str = Field(max_length=_MOST_DRAWING)
    """What stands inside of the element `svg`."""
    hidden: bool = False
    """Whether it is there for old users only."""


class _Alias(BaseModel):
    parent: _Key
    rotate: int = 0
    hFlip: bool = False
    vFlip: bool = False


class _File(_Box):
    icons: dict[_Key, Icon]
    aliases: dict[_Key, _Alias] = {}


class _Metadata(BaseModel):
    categories: dict[str, list[_Key]] = {}


@dataclass(frozen=True)
class IconSet:
    """All drawings of one package."""

    icons: Mapping[str, Icon]
    """Shown ones by key, each with its whole box."""
    aliases: Mapping[str, str]
    """Another name of a drawing, and its key; mirrored and turned drawings are left out."""
    categories: Mapping[str, str]
    """By key, where the package has them."""


def read_icons(folder: Path) -> IconSet:
    """The icon set of a package's folder.

    Raises:
        InputError: a file cannot be read or is no icon set.
    """
    path = folder / "icons.json"
    try:
        file = _File.model_validate(read_json(path, _MOST_BYTES))
        metadata = read_json(folder / "metadata.json") if (folder / "metadata.json").exists() else {}
        groups = _Metadata.model_validate(metadata).categories
    except ValidationError as error:
        raise InputError(f"{printable(path)} is no icon set: {_first_fault(error)}") from error
    plain = {name: a.parent for name, a in file.aliases.items() if not (a.rotate or a.hFlip or a.vFlip)}
    categories = {key: category for category, keys in groups.items() for key in keys}
    return IconSet({key: _boxed(icon, file) for key, icon in file.icons.items() if not icon.hidden}, plain, categories)


def _boxed(icon: Icon, file: _File) -> Icon:
    """The icon with its own sides or else the set's or else Iconify's: 0, 0, 16, 16."""
    default = {"left": 0.0, "top": 0.0, "width": 16.0, "height": 16.0}
    sides = {name: getattr(icon, name) or getattr(file, name) or value for name, value in default.items()}
    return icon.model_copy(update=sides)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    return printable(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}")
