"""The report as a person sees it: a file opened in Chromium, wide and narrow, light and dark.

With AGD_SCREENSHOTS naming a folder, what was seen is left there.
"""

import io
import os
import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from agd_core.report.images import grid_png
from agd_core.report.page import render_page
from tests.agd_core.report.made_up import METHODS, page
from tests.chromium import PATIENCE, chromium_path
from tests.real_images import real_images

WIDTHS = {"desktop": 1280, "phone": 390, "small phone": 360}
CONTRAST = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    const colour = numbers(getComputedStyle(node).backgroundColor);
    return colour.length === 4 && colour[3] === 0 ? ground(node.parentElement) : colour;
  };
  const ratio = (node) => {
    const [dark, bright] = [light(numbers(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => a - b);
    return [(bright + 0.05) / (dark + 0.05), node.outerHTML.slice(0, 80)];
  };
  const words = [...document.querySelectorAll("main *, header *")].filter(
    (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim()));
  return words.map(ratio);
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A full page, with real images."""
    images, labels = real_images("test")
    ranked = torch.stack([(labels == label).nonzero()[:16, 0] for label in range(10)])
    chosen = [ranked[:, 4 * place : 4 * place + 4].T.flatten() for place in range(len(METHODS))]
    grids = {name: grid_png(images[rows], 10) for name, rows in zip(METHODS, chosen, strict=True)}
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_page(page(grids)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium():
    executable = chromium_path()
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=quiet)
        yield browser
        browser.close()


@contextmanager
def opened(chromium, path, width=1280, **options):
    """The page; afterwards it must have asked for nothing else and complained of nothing."""
    context = chromium.new_context(viewport={"width": width, "height": 800}, **options)
    context.set_default_timeout(PATIENCE)
    shown, complaints, requests = context.new_page(), [], []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    shown.on("request", lambda request: requests.append(request.url))
    shown.goto(path.as_uri())
    yield shown
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]


def seen(shown):
    """The compare picture as pixels."""
    png = shown.locator(".stage").screenshot(animations="disabled")
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float)


def apart(one, other):
    """Mean distance of two pictures, in grey levels; a focus ring or the dividing line is below 2."""
    return np.abs(one - other).mean()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_everything_is_visible_and_nothing_is_wider_than_the_screen(chromium, report, device, scheme):
    with opened(chromium, report, WIDTHS[device], color_scheme=scheme) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") == WIDTHS[device]
        pictures = shown.locator("main img")
        assert pictures.count() == 2 + len(METHODS) + 7
        for picture in pictures.all():
            picture.scroll_into_view_if_needed()
            expect(picture).to_be_visible()
            box = picture.bounding_box()
            assert picture.evaluate("e => e.naturalWidth") > 0
            assert box["x"] >= 0
            assert 250 < box["width"] <= WIDTHS[device] - box["x"]
        if folder := os.environ.get("AGD_SCREENSHOTS"):
            shown.screenshot(path=Path(folder) / f"report-{device}-{scheme}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read(chromium, report, scheme):
    with opened(chromium, report, color_scheme=scheme) as shown:
        shown.locator("details").evaluate_all("all => all.forEach((one) => { one.open = true; })")
        ratios = shown.evaluate(CONTRAST)
        assert len(ratios) > 200
        assert min(ratios)[0] >= 4.5, min(ratios)
        ground = shown.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) > 384) == (scheme == "light")


@pytest.mark.parametrize("touch", [False, True])
def test_a_click_or_tap_flips_between_the_two(chromium, report, touch):
    with opened(chromium, report, 390 if touch else 1280, has_touch=touch) as shown:
        stage = shown.locator(".stage")
        press = (lambda: stage.tap(position={"x": 30, "y": 30})) if touch else stage.click
        expect(shown.locator(".tag.a")).to_have_text("CFG, scale 2, 40 NFE")
        expect(shown.locator(".tag.b")).to_have_text("agd-modulated-mlp, scale 2, 20 NFE")
        split = seen(shown)
        states = []
        for _ in range(3):
            press()
            shown.mouse.move(0, 0)
            states.append((seen(shown), shown.locator(".tag.off").inner_text()))
        assert [name.split(",")[0] for _, name in states] == ["CFG", "agd-modulated-mlp", "CFG"]
        first, second, third = (picture for picture, _ in states)
        assert apart(first, third) < 2
        assert min(apart(first, second), apart(first, split), apart(second, split)) > 5


def test_the_whole_picture_is_one_of_the_two_grids(chromium, report):
    with opened(chromium, report) as shown:
        stage, sources = shown.locator(".stage"), shown.locator(".grids .sheet > img")
        for side, grid in (("a", 1), ("b", 2)):
            image = stage.locator(f"img.{side}")
            assert image.get_attribute("src") == sources.nth(grid).get_attribute("src")
        clip = "e => getComputedStyle(e).clipPath"
        assert stage.locator("img.b").evaluate(clip) == "inset(0px 0px 0px 50%)"
        shown.get_by_role("button", name="Flip A / B").click()
        assert stage.locator("img.b").evaluate(clip) == "inset(0px 0px 0px 0%)"


def test_any_two_methods_can_be_chosen(chromium, report):
    with opened(chromium, report) as shown:
        before = seen(shown)
        shown.get_by_label("Method A").select_option("3")
        expect(shown.locator(".tag.a")).to_have_text("agd-offset, scale 2, 20 NFE")
        offset = shown.locator(".grids .sheet > img").nth(3).get_attribute("src")
        assert shown.locator(".stage img.a").get_attribute("src") == offset
        assert apart(seen(shown), before) > 5


def test_the_keyboard_compares_too(chromium, report):
    with opened(chromium, report) as shown:
        shown.locator(".stage").focus()
        slider = shown.get_by_label("How much of the picture shows A")
        places = []
        for key in ("a", "ArrowLeft", "b", "ArrowRight", " ", "Enter"):
            shown.keyboard.press(key)
            places.append(slider.input_value())
        assert places == ["100", "95", "0", "5", "0", "100"]
        slider.focus()
        shown.keyboard.press("ArrowLeft")
        assert shown.locator(".stage").evaluate("e => e.style.getPropertyValue('--split')") == "99%"


def test_the_difference_of_a_method_to_itself_is_black(chromium, report):
    with opened(chromium, report) as shown:
        shown.get_by_label("difference of the two").check()
        assert seen(shown).mean() > 20
        shown.get_by_label("Method A").select_option("2")
        assert seen(shown).mean() < 2


def test_every_image_tells_its_class(chromium, report):
    with opened(chromium, report) as shown:
        figure = shown.locator("figure.compare")
        cells = figure.locator(".cells span")
        assert cells.count() == 40
        cells.nth(7).hover()
        expect(figure.locator("output")).to_have_text("Sneaker")
        assert cells.nth(7).get_attribute("title") == "Sneaker"
        box, stage = cells.nth(39).bounding_box(), figure.locator(".stage").bounding_box()
        assert box["x"] + box["width"] == pytest.approx(stage["x"] + stage["width"], abs=1)
        assert box["y"] + box["height"] == pytest.approx(stage["y"] + stage["height"], abs=1)


def test_the_command_can_be_copied(chromium, report):
    with opened(chromium, report, permissions=["clipboard-read", "clipboard-write"]) as shown:
        shown.get_by_role("button", name="Copy the command").click()
        expect(shown.locator("button[data-copy]")).to_have_text("Copied")
        assert shown.evaluate("navigator.clipboard.readText()") == shown.locator("#command").inner_text()


def test_without_a_clipboard_the_command_is_selected(chromium, report):
    with opened(chromium, report) as shown:
        shown.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        shown.get_by_role("button", name="Copy the command").click()
        expect(shown.locator("button[data-copy]")).to_have_text("Selected")
        assert shown.evaluate("String(getSelection())") == shown.locator("#command").inner_text()


def test_without_javascript_all_grids_are_there_and_no_dead_control(chromium, report):
    with opened(chromium, report, java_script_enabled=False) as shown:
        for picture in shown.locator(".grids img").all():
            expect(picture).to_be_visible()
        for control in ("select", "button", "input"):
            assert [one for one in shown.locator(control).all() if one.is_visible()] == []


def test_a_page_full_of_attacks_runs_nothing(chromium, tmp_path):
    from tests.agd_core.report.test_page import ATTACK
    from tests.agd_core.report.test_page import page as attacked

    path = tmp_path / "report.html"
    path.write_text(render_page(attacked(ATTACK)), encoding="utf-8")
    with opened(chromium, path, 390) as shown:
        shown.on("dialog", lambda dialog: pytest.fail("a script ran"))
        assert shown.locator("h1").inner_text() == ATTACK
        assert shown.evaluate("document.documentElement.scrollWidth") == 390
