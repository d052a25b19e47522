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
    """SPDX identifier that the package's own files give."""
    drawings_licence: str
    """SPDX identifier that the drawings' authors give: what is attributed."""
    author: str
    page: str
    notice: str
    """The authors' copyright line; where they write none, the credit that they ask for."""

    @property
    def may_ship(self) -> bool:
        """Whether what learns from it may ship: share-alike asks for its own licence."""
        return "-SA" not in self.drawings_licence


_APACHE, _MIT, _BY, _BY_SA = "Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-SA-4.0"
_NOTO = "https://github.com/googlefonts/noto-emoji"
_TWEMOJI = "https://github.com/jdecked/twemoji"
_FLUENT = "https://github.com/microsoft/fluentui-emoji"
_EMOJITWO = "https://github.com/EmojiTwo/emojitwo"
_FXEMOJI = "https://github.com/mozilla/fxemoji"
_OPENMOJI = "https://github.com/hfg-gmuend/openmoji"
_MICROSOFT = "Microsoft Corporation"

_OF_GOOGLE = "Copyright 2013 Google, Inc. All Rights Reserved."
"""svg/LICENSE; the LICENSE of the whole repository, since 2025 the SIL Open Font License, is for the fonts."""
_OF_TWITTER = (
    "Copyright 2019 Twitter, Inc and other contributors; "
    "Copyright (c) 2022\N{EN DASH}present Jason Sofonia & Justine De Caires"
)
"""README.md of twitter/twemoji, LICENSE of jdecked/twemoji, which goes on with it."""
_OF_MICROSOFT = "Copyright (c) Microsoft Corporation."
"""LICENSE."""
_OF_EMOJITWO = (
    "Emoji artwork is provided by Emojitwo (https://emojitwo.github.io/), originally released as Emojione 2.2 "
    "(https://www.emojione.com) by Ranks.com (http://www.ranks.com) with contributions from the Emojitwo community "
    "and is licensed under CC-BY 4.0 (https://creativecommons.org/licenses/by/4.0/legalcode)"
)
"""README.md, "Ideal Attribution"; LICENSE.md has no copyright line."""
_OF_MOZILLA = "Copyright 2015, Mozilla Foundation"
"""LICENSE.md: Apache-2.0 for the code, CC BY 4.0 for the visual design."""
_OF_OPENMOJI = (
    "All emojis designed by OpenMoji (https://openmoji.org/) \N{EN DASH} the open-source emoji and icon project. "
    "License: CC BY-SA 4.0"
)
"""README.md, "Attribution Requirements", which has no copyright line."""

PACKAGES = (
    Package("noto", "1.2.9", "noto", True, _APACHE, _APACHE, "Google Inc", _NOTO, _OF_GOOGLE),
    Package("noto-v1", "1.2.5", "blob", True, _APACHE, _APACHE, "Google Inc", _NOTO, _OF_GOOGLE),
    Package("twemoji", "1.2.5", "twemoji", True, _BY, _BY, "Twitter", _TWEMOJI, _OF_TWITTER),
    Package("fluent-emoji-flat", "1.2.6", "flat", True, _MIT, _MIT, _MICROSOFT, _FLUENT, _OF_MICROSOFT),
    Package("fluent-emoji", "1.2.7", "3d", True, _MIT, _MIT, _MICROSOFT, _FLUENT, _OF_MICROSOFT),
    Package("emojione", "1.2.3", "emojione", True, _BY, _BY, "Emoji One", _EMOJITWO, _OF_EMOJITWO),
    Package("fxemoji", "1.2.2", "firefox", False, _APACHE, _BY, "Mozilla", _FXEMOJI, _OF_MOZILLA),
    Package("openmoji", "1.2.29", "openmoji", False, _BY_SA, _BY_SA, "OpenMoji", _OPENMOJI, _OF_OPENMOJI),
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
