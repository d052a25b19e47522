"""Pages of other origins in a real browser that has logged in to a real lab: none of them gets anything from it."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import pytest

from tests.lab.browser import EVIL, browse
from tests.lab.lab_process import PATIENCE_SECONDS

PAGE = b"<!doctype html><title>elsewhere</title><body>a page of somebody else</body>"
TRY_ALL = """async ([base, routes, deployment]) => {
    const body = JSON.stringify({parameters: {}, job_variables: {command: "touch evil"}});
    const password = {"Content-Type": "application/json", "Authorization": "Basic YWdkOnJpZ2h0"};
    const attempts = routes.flatMap(([method, path]) => [
        {path, method, mode: "cors", credentials: "include"},
        ...(["GET", "POST"].includes(method) ? [{path, method, mode: "no-cors", credentials: "include"}] : []),
    ]);
    const path = `/api/deployments/${deployment}/create_flow_run`;
    attempts.push({path, method: "POST", mode: "no-cors", credentials: "include", body});
    attempts.push({path, method: "POST", mode: "cors", credentials: "include", body, headers: password});
    const tried = attempts.map(async ({path, ...options}) => {
        try { await fetch(base + path, options); return [options.method, options.mode, path]; } catch { return null; }
    });
    return (await Promise.all(tried)).filter(answer => answer);
}"""
ASK_ALL = """async routes => Promise.all(
    routes.map(async ([method, path]) => (await fetch(path, {method})).status))"""
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
def routes(lab) -> list[tuple[str, str]]:
    """Everything that can be asked, health too, as method and path."""
    paths = ask(lab, "/openapi.json").json()["paths"]
    declared = [
        (method.upper(), f"/api{path}".replace("{", "").replace("}", ""))
        for path, methods in paths.items()
        for method in methods
    ]
    pages = ("/ui-settings", "/openapi.json", "/docs", "/login", "/v2/", "/reports/outputs/report.html")
    return [*declared, *(("GET", page) for page in pages)]


def ask(lab, path):
    return httpx.get(f"{lab.lab.url}{path}", auth=tuple(lab.lab.auth.split(":")), timeout=PATIENCE_SECONDS)


def runs(lab) -> int:
    with lab.client() as client:
        return len(client.read_flow_runs(limit=200))


@pytest.mark.parametrize("host", ["127.0.0.1", EVIL])
def test_a_page_of_another_origin_gets_nothing_and_starts_nothing(lab, routes, host):
    with lab.client() as client:
        deployment = str(client.read_deployment_by_name("distill/distill").id)
    before = runs(lab)
    statuses = {}
    with browse(lab) as browser, another_server() as port:
        page = browser.page.context.new_page()
        page.goto(f"http://{host}:{port}/")
        page.on("response", lambda answer: statuses.update({urlsplit(answer.url).path: answer.status}))
        assert len(routes) > 150
        assert page.evaluate(TRY_ALL, [lab.lab.url, routes, deployment]) == []
        assert page.evaluate(OPEN_SOCKET, lab.lab.url.replace("http", "ws")) == "refused"
        assert page.evaluate(SHOW_IMAGE, f"{lab.lab.url}/v2/favicon.ico") == "refused"
        with page.expect_navigation():
            page.evaluate(POST_FORM, f"{lab.lab.api_url}/deployments/{deployment}/create_flow_run")
        assert "another origin" in page.inner_text("body")
    assert set(statuses.values()) <= {401, 403, 405}
    assert runs(lab) == before


def test_a_name_that_was_pointed_here_is_not_answered(lab, routes):
    """DNS rebinding: to the browser the attacker's page and the lab are one origin then."""
    with browse(lab) as browser:
        page = browser.page.context.new_page()
        base = f"http://{EVIL}:{lab.lab.port}"
        assert page.goto(f"{base}/v2/").status == 421
        statuses = page.evaluate(ASK_ALL, routes)
    assert set(statuses) == {421}


def test_no_client_without_the_password_gets_anything_but_health(lab, routes):
    with httpx.Client(base_url=lab.lab.url, timeout=PATIENCE_SECONDS) as client:
        answers = {(method, path): client.request(method, path).status_code for method, path in routes}
    assert {route for route, status in answers.items() if status != 401} == {("GET", "/api/health")}
