"""What a person does in the browser: Chromium on a real lab. The screenshots in docs/images are made by this test when
AGD_SCREENSHOTS names a folder."""

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from flows.stages.verify import verify
from tests.lab.browser import browse

ANALYTICS = re.compile(r"^https://[\w.-]*amplitude\.com/")


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory) -> Path:
    return Path(os.environ.get("AGD_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))


def test_a_custom_run_from_the_form_to_the_report(lab, screenshots):
    with browse(lab) as browser:
        page = browser.page
        browser.open_form("distill", "distill")
        browser.choose("Select Preset", "fashion-dit-quick")
        images = page.get_by_role("spinbutton", name="Images (Optional)", exact=True)  # of sample; collect's are paths
        images.fill("0")
        assert "greater than or equal to 2" in images.evaluate("e => e.validationMessage")
        images.fill("60")
        browser.screenshot(screenshots / "lab-form.png")
        run_id = browser.submit()
        expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
        browser.screenshot(screenshots / "lab-run.png")
        page.get_by_role("tab", name="Artifacts").click()
        page.get_by_role("link", name=re.compile("Results of the distillation")).click()
        page.locator("a[href*='/artifacts/artifact/']").first.click()
        expect(page.get_by_role("cell", name="agd-modulated-mlp").first).to_be_visible()
        grid = page.locator("img[src^='data:image/png']").first
        expect(grid).to_be_visible()
        assert grid.evaluate("e => e.naturalWidth") > 100
        browser.screenshot(screenshots / "lab-results.png")
        page.goto(page.get_by_role("link", name="Open the report").get_attribute("href"))
        expect(page.get_by_role("heading", name="Adapter Guidance Distillation").first).to_be_visible()
    run = lab.run(run_id)
    assert run.parameters["settings"] == {"preset": "fashion-dit-quick", "sample": {"images": 60}} | {
        name: run.parameters["settings"][name]
        for name in run.parameters["settings"]
        if name not in ("preset", "sample")
    }
    assert run.name == "distill fashion-dit-quick sample.images=60"
    assert verify(lab.work_folder / "outputs")["ok"]
    assert [url for url in browser.asked_elsewhere if not ANALYTICS.match(url)] == []
