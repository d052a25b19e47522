"""The door of the lab's server: who may ask it anything.

A browser carries every page's requests to this machine, and every program on it can reach the port. So a request is
answered only if it names the lab by its own address (else a page could give this address a name of its own), comes from
no other page, and carries the password. The one thing that anybody may ask is whether the server is up.
"""

import hmac
import ipaddress
import json
from base64 import b64encode
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.lab.network import LOOPBACK_NAMES

HEALTH = "/api/health"
"""What needs no password."""
REALM = "agd lab"
_ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 words for "every address", nothing listens here
_RUN_PATHS = ("/create_flow_run", "/flow_runs", "/automations")
_NOT_THE_RUNS = ("job_variables", "infrastructure_document_id")
_FREE = ("parameters", "context")
_MOST_RUN_BYTES = 4 << 20
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Refused(Exception):
    """A request that gets no answer but this.

    Args:
        status: of the answer.
        reason: one line for a person.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Guard:
    """ASGI middleware around the whole server.

    Args:
        app: what it guards.
        names: host names and addresses that the lab goes by; 0.0.0.0 or :: among them stands for every address in
            numbers, which no page can have for a name.
        auth: user:password that has to be given; None lets everybody in who can reach the port.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], auth: str | None) -> None:
        self.app = app
        self._names = frozenset(name.lower().strip("[]") for name in (*LOOPBACK_NAMES, *names))
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_address(headers)
            _check_origin(scope, headers)
            self._check_password(scope, headers)
            receive = await _checked_run(scope, receive)
        except Refused as refused:
            await _refuse(refused, scope, receive, send)
            return
        await self.app(scope, receive, _with_headers(send))

    def _check_address(self, headers: Headers) -> None:
        """Only requests that name this server, so that no other name for this address is of use."""
        hosts = headers.getlist("host")
        name = _host_name(hosts[0]) if len(hosts) == 1 else ""
        known = name in self._names or (_is_address(name) and not self._names.isdisjoint(_ANY_ADDRESS))
        if not known:
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST, "this lab does not go by that host name; AGD_HOST_NAMES adds names"
            )

    def _check_password(self, scope: Scope, headers: Headers) -> None:
        """HTTP's own basic authentication, which a browser asks for and keeps for this address and port alone.

        A websocket without it is left to Prefect, which asks for the password in the first message.
        """
        if not self._auth or (scope["path"] == HEALTH and scope.get("method") in ("GET", "HEAD")):
            return
        given = headers.get("authorization", "").encode("utf-8", "replace")
        expected = b"Basic " + b64encode(self._auth.encode())
        message_first = scope["type"] == "websocket" and not given
        if not message_first and not hmac.compare_digest(given, expected):
            raise Refused(HTTPStatus.UNAUTHORIZED, "the password of the lab is needed; agd up has printed it")


def _check_origin(scope: Scope, headers: Headers) -> None:
    """Nothing that another page has a browser send, but for a link to a page of the UI or a report."""
    host = headers.get("host", "").lower()
    for origin in headers.getlist("origin"):
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.netloc.lower() != host:
            raise Refused(HTTPStatus.FORBIDDEN, "a page of another origin may not ask this lab")
    elsewhere = headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
    if elsewhere and not _follows_a_link(scope, headers):
        raise Refused(HTTPStatus.FORBIDDEN, "a page of another origin may not ask this lab")


def _follows_a_link(scope: Scope, headers: Headers) -> bool:
    """Whether a person goes to a page of ours; the page that has the link sees nothing of it."""
    opened = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == ("navigate", "document")
    return opened and scope.get("method") == "GET" and not scope["path"].startswith("/api")


async def _checked_run(scope: Scope, receive: Receive) -> Receive:
    """What a request for a run says, once it is known that it sets parameters and nothing else.

    Raises:
        Refused: it sets what is not the run's to set.
    """
    asks_for_runs = any(part in scope["path"] for part in _RUN_PATHS)
    if not asks_for_runs or scope.get("method") not in ("POST", "PATCH", "PUT"):
        return receive
    body = await _read(receive)
    try:
        name = _not_the_runs(json.loads(body or b"{}"))
    except (ValueError, RecursionError):
        name = None  # Prefect says what is wrong with it
    if name:
        raise Refused(HTTPStatus.FORBIDDEN, f"{name}: a run of this lab takes the parameters of its form only")
    return _replayed(body, receive)


def _not_the_runs(asked: Any) -> str | None:
    """The first thing set in a request that a run may not set; parameters are looked at by the flow itself."""
    if isinstance(asked, list):
        return next((found for item in asked if (found := _not_the_runs(item))), None)
    if not isinstance(asked, dict):
        return None
    set_here = next((name for name in _NOT_THE_RUNS if asked.get(name)), None)
    return set_here or _not_the_runs([value for name, value in asked.items() if name not in _FREE])


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if sum(map(len, parts)) > _MOST_RUN_BYTES:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request is too large")
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` for the application, after the body was read here."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay


async def _refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": refused.reason})
        return
    asks = {"WWW-Authenticate": f'Basic realm="{REALM}", charset="UTF-8"'}
    headers = _HEADERS | (asks if refused.status == HTTPStatus.UNAUTHORIZED else {})
    answer = JSONResponse({"detail": refused.reason, "exception_message": refused.reason}, refused.status, headers)
    await answer(scope, receive, send)


def _with_headers(send: Send) -> Send:
    """What keeps an answer from being put into another page."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return guarded


def _host_name(host: str) -> str:
    """The name in a Host header, without its port; empty for what is no host."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
