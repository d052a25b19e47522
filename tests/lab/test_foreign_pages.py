"""Pages of other origins in a real browser that has logged in to a real lab: none of them gets anything from it."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import pytest

from tests.lab.browser import EVIL, browse

PAGE = b"<!doctype html><title>elsewhere</title><body>a page of somebody else</body>"
TRY_ALL = """async ([base, paths, deployment]) => {
    const body = JSON.stringify({parameters: {}, job_variables: {command: "touch evil"}});
    const attempts = paths.flatMap(path => [
        {path, mode: "cors", credentials: "include"},
        {path, mode: "no-cors", credentials: "include"},
    ]);
    const start = `/api/deployments/${deployment}/create_flow_run`;
    attempts.push({path: start, method: "POST", mode: "no-cors", credentials: "include", body});
    attempts.push({path: start, method: "POST", mode: "cors", credentials: "include", body,
        headers: {"Content-Type": "application/json", "Authorization": "Basic YWdkOnJpZ2h0"}});
    const answered = [];
    for (const {path, ...options} of attempts) {
        try { await fetch(base + path, options); answered.push([options.mode, path]); } catch (error) { }
    }
    return answered;
}"""
OPEN_SOCKET = """base => new Promise(done => {
    const socket = new WebSocket(base + "/api/events/out", ["prefect"]);
    socket.onopen = () => done("open"); socket.onerror = () => done("refused");
})"""
SHOW_IMAGE = """url => new Promise(done => {
    const image = new Image();
    image.onload = () => done("shown"); image.onerror = () => done("refused"); image.src = url;
})"""
POST_FORM = """url => {
    const form = document.createElement("form");
    form.method = "POST"; form.enctype = "text/plain"; form.action = url;
    const field = document.createElement("input");
    field.name = '{"parameters": {}, "a": "'; field.value = '"}';
    form.append(field); document.body.append(form); form.submit();
}"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *arguments):
        pass


@contextmanager
def another_server():
    """A web server of somebody else on this machine; yields its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture(scope="module")
def paths(lab) -> list[str]:
    """Everything that can be asked with GET, health too."""
    declared = ask(lab, "/openapi.json").json()["paths"]
    shown = [f"/api{path}".replace("{", "").replace("}", "") for path, methods in declared.items() if "get" in methods]
    return [*shown, "/ui-settings", "/openapi.json", "/docs", "/login", "/v2/", "/reports/outputs/report.html"]


def ask(lab, path):
    return httpx.get(f"{lab.lab.url}{path}", auth=tuple(lab.lab.auth.split(":")))


def runs(lab) -> int:
    with lab.client() as client:
        return len(client.read_flow_runs(limit=200))


@pytest.mark.parametrize("host", ["127.0.0.1", EVIL])
def test_a_page_of_another_origin_gets_nothing_and_starts_nothing(lab, paths, host):
    with lab.client() as client:
        deployment = str(client.read_deployment_by_name("distill/distill").id)
    before = runs(lab)
    statuses = {}
    with browse(lab) as browser, another_server() as port:
        page = browser.page.context.new_page()
        page.goto(f"http://{host}:{port}/")
        page.on("response", lambda answer: statuses.update({urlsplit(answer.url).path: answer.status}))
        assert len(paths) > 50
        assert page.evaluate(TRY_ALL, [lab.lab.url, paths, deployment]) == []
        assert page.evaluate(OPEN_SOCKET, lab.lab.url.replace("http", "ws")) == "refused"
        assert page.evaluate(SHOW_IMAGE, f"{lab.lab.url}/v2/favicon.ico") == "refused"
        with page.expect_navigation():
            page.evaluate(POST_FORM, f"{lab.lab.api_url}/deployments/{deployment}/create_flow_run")
        assert "another origin" in page.inner_text("body")
    assert set(statuses.values()) <= {401, 403, 405}
    assert runs(lab) == before


def test_a_name_that_was_pointed_here_is_not_answered(lab, paths):
    """DNS rebinding: to the browser the attacker's page and the lab are one origin then."""
    with browse(lab) as browser:
        page = browser.page.context.new_page()
        base = f"http://{EVIL}:{lab.lab.port}"
        assert page.goto(f"{base}/v2/").status == 421
        statuses = page.evaluate(
            "async paths => Promise.all(paths.map(async path => (await fetch(path)).status))", paths
        )
    assert set(statuses) == {421}


def test_no_client_without_the_password_gets_anything_but_health(lab, paths):
    with httpx.Client(base_url=lab.lab.url) as client:
        answers = {path: client.get(path).status_code for path in paths}
    assert {path for path, status in answers.items() if status != 401} == {"/api/health"}
