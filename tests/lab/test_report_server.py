"""The reports of a lab over HTTP: they can be read, and nothing else can."""

import httpx
import pytest

from flows.lab.report_server import serve_reports

AUTH = ("team", "let-me-in")


@pytest.fixture
def folder(tmp_path):
    for path in (tmp_path / "work" / "outputs", tmp_path / "outside"):
        path.mkdir(parents=True)
        (path / "report.html").write_text(f"<p>{path.name}</p>")
    (tmp_path / "work" / "outputs" / "metrics.json").write_text("{}")
    (tmp_path / "work" / "link").symlink_to(tmp_path / "outside")
    return tmp_path / "work"


def test_a_report_is_served(folder):
    with serve_reports(folder, "127.0.0.1", 0, None) as url:
        answer = httpx.get(f"{url}/outputs/report.html")
    assert answer.status_code == 200
    assert answer.text == "<p>outputs</p>"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    ["", "outputs", "outputs/metrics.json", "../outside/report.html", "%2e%2e/outside/report.html", "link/report.html"],
)
def test_nothing_else_is(folder, path):
    with serve_reports(folder, "127.0.0.1", 0, None) as url:
        assert httpx.get(f"{url}/{path}").status_code == 404


def test_a_password_is_asked_for_where_the_lab_has_one(folder):
    with serve_reports(folder, "127.0.0.1", 0, ":".join(AUTH)) as url:
        assert httpx.get(f"{url}/outputs/report.html").status_code == 401
        assert httpx.get(f"{url}/outputs/report.html", auth=("team", "wrong")).status_code == 401
        assert httpx.get(f"{url}/outputs/report.html", auth=AUTH).status_code == 200
