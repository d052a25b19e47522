"""Small packages of drawings of our own, laid out as the real ones are."""

import json
from dataclasses import replace

from agd_core.pretraining.emoji.packages import PACKAGES, SCOPE

THINGS = ("red-apple", "green-pear", "cat-with-hat", "bell", "castle")
CATEGORY = {"red-apple": "Food & Drink", "green-pear": "Food & Drink", "cat-with-hat": "Animals & Nature"}
_SIDE = 32


def drawing(number, style):
    """A coloured square on a coloured disc: another one for every thing and style."""
    colour, place = f"#{(number * 40 + 30) % 256:02x}{(style * 60) % 256:02x}50", 4 + number
    square = f'<rect x="{place}" y="{place}" width="10" height="10" fill="{colour}"/>'
    return f'<circle cx="16" cy="16" r="{8 + style}" fill="#ffcc4d"/>{square}'


def icons_file(style, extra=None):
    """`icons.json` of a package."""
    icons = {key: {"body": drawing(number, style)} for number, key in enumerate(THINGS)}
    return {"prefix": "p", "icons": icons | (extra or {}), "aliases": {}, "width": _SIDE, "height": _SIDE}


def write_package(folder, package, file):
    """The package's folder with its four files."""
    folder.mkdir(parents=True)
    categories = {group: [key for key in THINGS if CATEGORY.get(key, "Objects") == group] for group in GROUPS}
    files = {
        "package.json": {"name": f"{SCOPE}/{package.name}", "license": package.licence, "version": package.version},
        "info.json": {"license": {"spdx": package.licence}, "author": {"name": package.author, "url": package.page}},
        "metadata.json": {"categories": categories},
        "icons.json": file,
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


GROUPS = ("Food & Drink", "Animals & Nature", "Objects")


def write_packages(root, extra=None):
    """All packages of the table, `extra` icons in the first."""
    for number, package in enumerate(PACKAGES):
        write_package(root / package.name, package, icons_file(number, None if number else extra))
    return root


def sibling(package):
    """The same package, left for siblings."""
    return replace(package, is_base=False)
