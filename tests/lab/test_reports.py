"""The reports of a lab as pages of its server: they can be read, and nothing else can."""

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from flows.lab import reports
from flows.lab.reports import Reports
from flows.stages.report import REPORT, SWEEP
from flows.stages.shootout import SHOOTOUT


@pytest.fixture
def folder(tmp_path):
    for path in (tmp_path / "work" / "outputs", tmp_path / "outside"):
        path.mkdir(parents=True)
        (path / "report.html").write_text(f"<p>{path.name}</p>")
    (tmp_path / "work" / "outputs" / "metrics.json").write_text("{}")
    (tmp_path / "work" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "work" / "circle").symlink_to("circle")
    (tmp_path / "work" / "sweep.html").mkdir()
    return tmp_path / "work"


@pytest.fixture
def client(folder):
    return TestClient(Starlette(routes=[Route("/reports/{path:path}", Reports(folder))]))


def test_a_report_is_shown_and_can_ask_the_server_for_nothing(client):
    answer = client.get("/reports/outputs/report.html")
    assert (answer.status_code, answer.text) == (200, "<p>outputs</p>")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "allow-same-origin" not in policy


@pytest.mark.parametrize(
    "path",
    [
        *("", "outputs", "outputs/metrics.json", "../outside/report.html", "%2e%2e/outside/report.html"),
        *("link/report.html", "circle/report.html", "sweep.html", "outputs%00/report.html"),
        *("n" * 256, f"{'n' * 256}/report.html", "n/" * 3000 + "report.html", "%ff/report.html", "/etc/passwd"),
        *("\u0662.html", "outputs\\report.html", "~/report.html", "outputs/%2e%2e/%2e%2e/outside/report.html"),
    ],
)
def test_whatever_else_is_asked_for_is_not_there(client, path):
    answer = client.get(f"/reports/{path}")
    assert (answer.status_code, answer.text) in ((404, "there is no such report"), (404, "Not Found"))


def test_a_report_is_read_only(client):
    assert client.post("/reports/outputs/report.html").status_code in (404, 405)


def test_the_names_are_those_of_the_stages():
    assert (REPORT.page, SWEEP.page, SHOOTOUT.page) == reports._PAGES
