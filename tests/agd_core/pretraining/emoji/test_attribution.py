"""The file beside the weights: every source that was learnt, its notice, its licence with an address, and no other."""

from agd_core.pretraining.emoji.attribution import ATTRIBUTION, LICENCES, MIT, write_attribution
from agd_core.pretraining.emoji.packages import PACKAGES, may_ship


def said(folder, *styles):
    write_attribution(folder, styles)
    return (folder / ATTRIBUTION).read_text(encoding="utf-8")


def test_every_base_source_is_named_with_author_page_notice_and_licence(tmp_path):
    text = said(tmp_path)
    for package in PACKAGES:
        row = f"| @iconify-json/{package.name} | {package.version} | {package.style} | {package.drawings_licence} | "
        assert (f"{row}{package.author} | {package.page} |" in text) == package.is_base
        assert (f"- {package.style}: {package.notice}\n" in text) == package.is_base
    used = {package.drawings_licence for package in PACKAGES if package.is_base}
    assert {name for name, address in LICENCES.items() if f"- {name}: {address}\n" in text} == used
    assert "were changed" in text


def test_what_the_licences_ask_for_is_there(tmp_path):
    text = said(tmp_path, "firefox")
    assert "- 3d: Copyright (c) Microsoft Corporation.\n" in text
    assert f"\n\n{MIT}\n\n" in text
    assert "- firefox: Copyright 2015, Mozilla Foundation\n" in text
    assert "| firefox | CC-BY-4.0 | Mozilla | https://github.com/mozilla/fxemoji |" in text
    assert "Creative Commons Attribution 4.0 International, https://creativecommons.org/licenses/by/4.0/" in text


def test_what_was_learnt_beside_the_base_styles_is_named_too(tmp_path):
    assert "fxemoji" not in said(tmp_path)
    assert "fxemoji" in said(tmp_path, "firefox")
    assert "openmoji" not in said(tmp_path, "firefox", "no such style")


def test_only_the_share_alike_style_may_not_ship():
    assert [package.style for package in PACKAGES if not may_ship(package.style)] == ["openmoji"]
    assert may_ship("round")
    assert {package.drawings_licence for package in PACKAGES} == set(LICENCES)
