"""Debian's Chromium on Prefect's UI, cut off from every machine but this one."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Page, Route, expect, sync_playwright

from tests.chromium import PATIENCE, chromium_path
from tests.lab.lab_process import RunningLab

_QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --no-default-browser-check"
)
EVIL = "evil.example"
"""A name that the browser takes for this machine, as one does whose owner has pointed it here."""
_NAMES = f"--host-resolver-rules=MAP {EVIL} 127.0.0.1"
_ELSEWHERE = re.compile(r"^(https?|wss?)://(?!127\.0\.0\.1[:/])")


@dataclass
class Browser:
    """A page on a lab's UI."""

    page: Page
    lab: RunningLab
    asked_elsewhere: list[str] = field(default_factory=list)
    """Requests to other machines; all of them were stopped."""

    def open_deployment(self, flow: str, deployment: str) -> None:
        """The page of a deployment, reached as a person does: from the list."""
        self.page.goto(f"{self.lab.lab.ui_url}/deployments")
        self.page.get_by_role("link", name=deployment, exact=True).first.click()
        expect(self.page.get_by_role("button", name="Run", exact=True)).to_be_visible()

    def open_form(self, flow: str, deployment: str) -> None:
        """The form of a custom run."""
        self.open_deployment(flow, deployment)
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Custom run").click()
        expect(self.page.get_by_label("Output (Optional)")).to_be_visible()

    def choose(self, label: str, option: str) -> None:
        """Choose from a drop-down."""
        self.page.get_by_role("button", name=label).first.click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def submit(self) -> str:
        """Send the form and open the run's page; returns the run's id. A busy SQLite answers 503: then once more."""
        for _ in range(10):
            with self.page.expect_response(re.compile("/create_flow_run$")) as sent:
                self.page.get_by_role("button", name="Submit").click()
            if sent.value.status == 201:
                self.page.get_by_role("button", name="View run").click()
                return str(sent.value.json()["id"])
            self.page.wait_for_timeout(1000)
        raise AssertionError(f"the form was refused: {sent.value.status} {sent.value.text()}")

    def open_run(self, run_id: str) -> None:
        """The page of a run."""
        self.page.goto(f"{self.lab.lab.ui_url}/runs/flow-run/{run_id}")

    def run_menu(self, item: str, confirm: str) -> None:
        """Choose from a run's menu and confirm."""
        self.page.get_by_role("button", name="Open menu").first.click()
        self.page.get_by_role("menuitem", name=item).click()
        self.page.get_by_role("button", name=confirm, exact=True).click()

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(1000)
        self.page.screenshot(path=path, full_page=True)


@contextmanager
def browse(lab: RunningLab) -> Iterator[Browser]:
    """A browser that reaches this machine only, and remembers what it was asked for elsewhere."""
    executable = chromium_path()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=[*_QUIET.split(), _NAMES])
        page = chromium.new_context(viewport={"width": 1300, "height": 1000}).new_page()
        page.set_default_timeout(PATIENCE)
        browser = Browser(page, lab)
        page.goto(lab.lab.login_url)

        def stop(route: Route) -> None:
            browser.asked_elsewhere.append(route.request.url)
            route.abort()

        page.route(_ELSEWHERE, stop)
        yield browser
        chromium.close()
