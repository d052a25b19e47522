"""The table of sources: licences against the packages' own files, where packages may lie, what is refused."""

import json
import os
import re
from pathlib import Path

import pytest

from agd_core.basics.errors import InputError
from agd_core.pretraining.emoji.packages import PACKAGES, package_folders, require_licence
from tests.emoji_packages import icons_file, write_package, write_packages

ROOT = Path(__file__).resolve().parents[4]
REAL = "AGD_EMOJI_PACKAGES"


@pytest.mark.packages
@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
def test_the_table_says_what_the_packages_say(package):
    assert REAL in os.environ, f"{REAL} must name the folder with the packages; `npm pack` fetches them (docs/emoji.md)"
    require_licence(package, package_folders(Path(os.environ[REAL]))[package])


def test_the_page_shows_the_table():
    page = (ROOT / "docs" / "emoji.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| [")]
    shown = {re.sub(r"\[(.*)\]\(.*\)", r"\1", row[0]): row[1:] for row in rows}
    links = {re.sub(r".*\((.*)\)", r"\1", row[0]) for row in rows}
    for package in PACKAGES:
        use = "base" if package.is_base else "sibling"
        licences = [package.licence, package.drawings_licence]
        assert shown[package.name][:6] == [package.version, package.style, use, *licences, package.author]
        assert package.page in links


def test_styles_differ_and_one_licence_is_kept_from_the_base():
    assert len({package.style for package in PACKAGES}) == len(PACKAGES) == 8
    assert all("SA" not in package.drawings_licence for package in PACKAGES if package.is_base)


def test_only_mozilla_gives_its_drawings_another_licence_than_the_package_says():
    differ = [package for package in PACKAGES if package.licence != package.drawings_licence]
    assert [(package.name, package.licence, package.drawings_licence) for package in differ] == [
        ("fxemoji", "Apache-2.0", "CC-BY-4.0")
    ]


@pytest.mark.parametrize("place", ["{}", "@iconify-json/{}", "node_modules/@iconify-json/{}", "{}/package"])
def test_packages_are_found_where_npm_puts_them(tmp_path, place):
    for package in PACKAGES:
        write_package(tmp_path / place.format(package.name), package, icons_file(0))
    assert [folder.relative_to(tmp_path).as_posix() for folder in package_folders(tmp_path).values()] == [
        place.format(package.name) for package in PACKAGES
    ]


def test_a_missing_package_is_named(tmp_path):
    write_packages(tmp_path)
    (tmp_path / "openmoji" / "icons.json").unlink()
    with pytest.raises(InputError, match=r"no package openmoji.*it needs noto, noto-v1"):
        package_folders(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("package.json", {"license": "GPL-3.0"}, "licence in package.json is 'GPL-3.0'"),
        ("info.json", {"license": {"spdx": "MIT"}}, "licence in info.json is 'MIT'"),
        ("info.json", {"author": "me"}, "author is ''"),
        ("package.json", {"name": "noto"}, "name is 'noto'"),
    ],
)
def test_another_licence_is_refused(tmp_path, file, change, said):
    folder = write_packages(tmp_path) / "noto"
    told = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(told | change))
    with pytest.raises(InputError, match=said):
        package_folders(tmp_path)
