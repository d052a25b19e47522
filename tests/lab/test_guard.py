"""The door of the lab's server: every route of Prefect's real application, and an application of three lines."""

import json

import anyio
import pytest
from prefect.settings import PREFECT_SERVER_API_AUTH_STRING, temporary_settings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from flows.lab.guard import Guard
from flows.lab.server_process import guarded_app

PASSWORD = ("agd", "right")
WRONG = {"Authorization": "Basic YWdkOndyb25n"}
RIGHT = {"Authorization": "Basic YWdkOnJpZ2h0"}
HERE = "http://127.0.0.1:4200"
EVENTS = "ws://127.0.0.1:4200/api/events/out"
FOREIGN = {
    "Host of another name": {"Host": "evil.example"},
    "Host that only begins like ours": {"Host": "127.0.0.1.evil.example:4200"},
    "no Host": {"Host": ""},
    "Origin of another page": {"Origin": "https://evil.example"},
    "Origin of another port of this machine": {"Origin": "http://127.0.0.1:5000"},
    "Origin null": {"Origin": "null"},
    "Origin that ends like ours": {"Origin": "http://evil.example/127.0.0.1:4200"},
    "Origin of no web page": {"Origin": "file://127.0.0.1:4200"},
    "asked by another site": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "asked by another port": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    "posted by a form of another site": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    "shown in a frame of another site": {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "iframe",
    },
}
NO_PASSWORD = {
    "none": {},
    "wrong": WRONG,
    "bearer": {"Authorization": "Bearer right"},
    "empty": {"Authorization": ""},
    "not ASCII": {"Authorization": "Basic \xff"},
}
CROSS = {"Sec-Fetch-Site": "cross-site"}
LINK = {**CROSS, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def every_route(app, prefix="") -> set[tuple[str, str]]:
    """Method and path of all that an application answers, mounted ones too."""
    found = set()
    for route in app.routes:
        path = prefix + getattr(route, "path", "")
        inner = getattr(route, "app", None) or getattr(route, "original_router", None)
        if getattr(inner, "routes", None):
            found |= every_route(inner, path.rstrip("/"))
        for method in getattr(route, "methods", None) or {"GET"}:
            found.add((method, path.replace("{", "").replace("}", "").replace(":uuid", "").replace(":path", "")))
    return found


@pytest.fixture(scope="module")
def server():
    """The lab's real server without its database: what is refused never gets that far."""
    with temporary_settings({PREFECT_SERVER_API_AUTH_STRING: ":".join(PASSWORD)}):
        return guarded_app()


@pytest.fixture(scope="module")
def routes(server) -> list[tuple[str, str]]:
    declared = {
        (method.upper(), f"/api{path}") for path, methods in server.app.openapi()["paths"].items() for method in methods
    }
    return sorted(declared | every_route(server.app) | {("GET", "/"), ("GET", "/v2/"), ("GET", "/v2/assets/x.js")})


def ask_all(server, routes, headers) -> dict[tuple[str, str], int]:
    """The status of every route, asked without any client in between."""

    async def ask(method: str, path: str) -> int:
        sent = []
        given = {"Host": "127.0.0.1:4200", **headers}.items()
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": b"", "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("", 4200),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given],
        }  # fmt: skip

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            sent.append(message)

        await server(scope, receive, send)
        return int(sent[0]["status"])

    async def ask_each() -> dict[tuple[str, str], int]:
        return {(method, path): await ask(method, path) for method, path in routes}

    return anyio.run(ask_each)


def test_there_are_as_many_routes_as_prefect_has(routes):
    paths = {path for _, path in routes}
    assert len(routes) > 200
    assert {"/api/admin/settings", "/api/events/in", "/ui-settings", "/docs", "/api/ready", "/login"} <= paths


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_nothing_is_answered_for_another_page_or_name_even_with_the_password(server, routes, headers):
    answers = ask_all(server, routes, {**RIGHT, **headers})
    assert {route: status for route, status in answers.items() if status not in (403, 421)} == {}


@pytest.mark.parametrize("headers", NO_PASSWORD.values(), ids=NO_PASSWORD)
def test_nothing_but_health_is_answered_without_the_password(server, routes, headers):
    answers = ask_all(server, routes, headers)
    assert {route for route, status in answers.items() if status != 401} <= {
        ("GET", "/api/health"),
        ("HEAD", "/api/health"),
    }
    assert answers["GET", "/api/health"] == 200


class TestSmall:
    """Around an application that says what it was asked."""

    @staticmethod
    def app(auth: str | None = "agd:right", names: tuple[str, ...] = ()) -> Guard:
        async def echo(request: Request) -> JSONResponse:
            return JSONResponse({"path": request.url.path, "body": (await request.body()).decode("utf-8", "replace")})

        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text("in")
            await websocket.close()

        every = Route("/{path:path}", echo, methods=["GET", "HEAD", "POST", "PATCH", "DELETE"])
        return Guard(Starlette(routes=[WebSocketRoute("/api/events/out", socket), every]), names, auth)

    def client(self, **settings) -> TestClient:
        client = TestClient(self.app(**settings), base_url=HERE)
        client.auth = PASSWORD
        return client

    @pytest.mark.parametrize("host", ["127.0.0.1:4200", "localhost:4200", "LOCALHOST", "[::1]:4200", "127.0.0.1"])
    def test_its_own_names_are_answered(self, host):
        origin = f"http://{host}"
        assert self.client().get("/x", headers={"Host": host, "Origin": origin}).status_code == 200

    def test_a_name_that_was_given_is_answered_and_no_other(self):
        client = self.client(names=("lab.example.org",))
        statuses = [client.get("/", headers={"Host": host}).status_code for host in ("lab.example.org", "10.0.0.1")]
        assert statuses == [200, 421]

    def test_a_server_for_every_address_answers_to_numbers(self):
        client = self.client(names=("0.0.0.0",))  # noqa: S104 nothing listens
        hosts = ("10.0.0.1:4200", "[fd00::1]:4200", "evil.example")
        assert [client.get("/", headers={"Host": host}).status_code for host in hosts] == [200, 200, 421]

    def test_a_proxy_with_tls_in_front_is_the_same_origin(self):
        names = {"Host": "lab.example.org", "Origin": "https://lab.example.org"}
        assert self.client(names=("lab.example.org",)).get("/", headers=names).status_code == 200

    def test_two_hosts_are_none(self):
        asked = [("Host", "127.0.0.1"), ("Host", "evil.example")]
        assert self.client().get("/", headers=asked).status_code == 421

    def test_a_link_from_another_page_opens_a_page_and_nothing_of_the_api(self):
        client = self.client()
        assert client.get("/v2/runs", headers=LINK).status_code == 200
        assert client.get("/api/flows/1", headers=LINK).status_code == 403
        assert client.post("/v2/runs", headers=LINK).status_code == 403

    def test_the_browser_is_asked_for_the_password(self):
        refused = TestClient(self.app(), base_url=HERE).get("/v2/")
        assert refused.headers["WWW-Authenticate"].startswith('Basic realm="')
        assert "password" in refused.json()["detail"]

    def test_no_answer_can_be_put_into_another_page(self):
        headers = self.client().get("/").headers
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers

    def test_without_a_password_pages_from_elsewhere_are_refused_all_the_same(self):
        client = TestClient(self.app(auth=None), base_url=HERE)
        assert client.get("/").status_code == 200
        for headers in FOREIGN.values():
            assert client.get("/", headers=headers).status_code in (403, 421)

    @pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
    def test_a_websocket_from_elsewhere_is_closed_at_once(self, headers):
        client = self.client()
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(EVENTS, headers=headers):
            pass

    def test_a_websocket_with_a_wrong_password_is_closed_at_once(self):
        client = TestClient(self.app(), base_url=HERE)
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(EVENTS, headers=WRONG):
            pass

    def test_a_websocket_of_our_own_gets_through(self):
        client = TestClient(self.app(), base_url=HERE)
        with client.websocket_connect(EVENTS, headers=RIGHT) as websocket:
            assert websocket.receive_text() == "in"

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/api/deployments/1/create_flow_run", {"job_variables": {"command": "sh -c id"}}),
            ("/api/deployments/1/create_flow_run", {"job_variables": {"env": {"LD_PRELOAD": "x"}}}),
            ("/api/deployments/1/create_flow_run", {"job_variables": {"env.PATH": "x"}}),
            ("/api/deployments/1/create_flow_run/bulk", [{"parameters": {}}, {"job_variables": {"working_dir": "/"}}]),
            ("/api/flow_runs/", {"flow_id": "1", "job_variables": {"command": "id"}}),
            ("/api/flow_runs/1", {"infrastructure_document_id": "1"}),
            ("/api/automations/", {"actions": [{"type": "run-deployment", "job_variables": {"command": "id"}}]}),
        ],
    )
    def test_a_run_that_sets_more_than_parameters_is_refused(self, path, body):
        for method in ("POST", "PATCH"):
            refused = self.client().request(method, path, json=body)
            assert refused.status_code == 403
            assert "parameters of its form only" in refused.json()["detail"]

    @pytest.mark.parametrize(
        "body",
        [
            {"parameters": {"settings": {"preset": "sd15"}}, "job_variables": {}},
            {"parameters": {"job_variables": {"command": "a parameter of that name"}}, "job_variables": None},
        ],
    )
    def test_a_run_with_parameters_goes_through_unchanged(self, body):
        answer = self.client().post("/api/deployments/1/create_flow_run", json=body)
        assert json.loads(answer.json()["body"]) == body

    @pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff"])
    def test_what_is_no_json_is_left_to_prefect(self, body):
        answer = self.client().post("/api/flow_runs/", content=body)
        assert answer.status_code == 200

    def test_a_run_of_five_megabytes_is_refused(self):
        assert self.client().post("/api/flow_runs/", content=b" " * (5 << 20)).status_code == 413


def test_the_link_that_logs_in_leads_to_the_ui(server):
    assert ask_all(server, [("GET", "/login")], RIGHT) == {("GET", "/login"): 303}


def test_the_ui_is_told_not_to_ask_again(server):
    client = TestClient(server, base_url=HERE)
    client.auth = PASSWORD
    assert client.get("/ui-settings").json()["auth"] is None
    assert client.get("/login", follow_redirects=False).headers["Location"] == f"{HERE}/v2/"
