"""The npm packages that the emoji come from: their licences, authors and styles. docs/emoji.md shows this table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable, read_json

SCOPE = "@iconify-json"
"""npm's scope of all packages."""
PARTS = ("package.json", "info.json", "metadata.json", "icons.json")
"""The files that are read of a package."""
_PLACES = ("{name}", "{scope}/{name}", "node_modules/{scope}/{name}", "{name}/package")
"""Where in a folder a package may lie: by itself, as npm installs it, as `npm pack` packs it."""


@dataclass(frozen=True)
class Package:
    """One set of icons, in Iconify's JSON (https://iconify.design/docs/types/iconify-json.html)."""

    name: str
    """On npm, behind `SCOPE`."""
    version: str
    """Which one is fetched."""
    style: str
    """The word for it in captions."""
    is_base: bool
    """Whether the base model learns it; the others are left for siblings."""
    licence: str
    """SPDX identifier."""
    author: str
    page: str

    @property
    def may_ship(self) -> bool:
        """Whether what learns from it may ship: share-alike asks for its own licence."""
        return "-SA" not in self.licence


_NOTO = "https://github.com/googlefonts/noto-emoji"
_FLUENT = "https://github.com/microsoft/fluentui-emoji"
_MICROSOFT = "Microsoft Corporation"

PACKAGES = (
    Package("noto", "1.2.9", "noto", True, "Apache-2.0", "Google Inc", _NOTO),
    Package("noto-v1", "1.2.5", "blob", True, "Apache-2.0", "Google Inc", _NOTO),
    Package("twemoji", "1.2.5", "twemoji", True, "CC-BY-4.0", "Twitter", "https://github.com/jdecked/twemoji"),
    Package("fluent-emoji-flat", "1.2.6", "flat", True, "MIT", _MICROSOFT, _FLUENT),
    Package("fluent-emoji", "1.2.7", "3d", True, "MIT", _MICROSOFT, _FLUENT),
    Package("emojione", "1.2.3", "emojione", True, "CC-BY-4.0", "Emoji One", "https://github.com/EmojiTwo/emojitwo"),
    Package("fxemoji", "1.2.2", "firefox", False, "Apache-2.0", "Mozilla", "https://github.com/mozilla/fxemoji"),
    Package(
        "openmoji", "1.2.29", "openmoji", False, "CC-BY-SA-4.0", "OpenMoji", "https://github.com/hfg-gmuend/openmoji"
    ),
)
"""The first one names the pictures: others are called as it calls them, and it sorts them into categories."""


def may_ship(style: str) -> bool:
    """Whether what learns from pictures of this style may ship."""
    return all(package.may_ship for package in PACKAGES if package.style == style)


def package_folders(folder: Path) -> dict[Package, Path]:
    """Where each package of `PACKAGES` lies in a folder.

    Raises:
        InputError: one is not there, or its own files name another licence or author than the table.
    """
    found = {package: _folder_of(package, folder) for package in PACKAGES}
    for package, place in found.items():
        require_licence(package, place)
    return found


def _folder_of(package: Package, folder: Path) -> Path:
    places = [folder / place.format(name=package.name, scope=SCOPE) for place in _PLACES]
    for place in places:
        if (place / "icons.json").is_file():
            return place
    raise InputError(
        f"{printable(folder)} has no package {package.name}: there is no {package.name}/icons.json; "
        f"it needs {', '.join(package.name for package in PACKAGES)}, each unpacked"
    )


def require_licence(package: Package, folder: Path) -> None:
    """Compare the table with what a package says of itself.

    Raises:
        InputError: they differ.
    """
    info, npm = read_json(folder / "info.json"), read_json(folder / "package.json")
    said = {
        "name": _text(npm, "name"),
        "licence in package.json": _text(npm, "license"),
        "licence in info.json": _text(info, "license", "spdx"),
        "author": _text(info, "author", "name"),
        "page": _text(info, "author", "url"),
    }
    expected = (f"{SCOPE}/{package.name}", package.licence, package.licence, package.author, package.page)
    for (what, value), wanted in zip(said.items(), expected, strict=True):
        if value != wanted:
            raise InputError(
                f"{printable(folder)}: the {what} is {printable(value)!r}, the table of sources has {wanted!r}"
            )


def _text(value: Any, *keys: str) -> str:
    """What lies under keys inside one another; "" where there is no such text."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""
