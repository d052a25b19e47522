"""Serves the reports below the lab's work folder, so that a run's page can link to them, and nothing else of it."""

import hmac
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

from flows.stages.report import REPORT, SWEEP

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@contextmanager
def serve_reports(folder: Path, host: str, port: int, auth: str | None) -> Iterator[str]:
    """Serve every report.html at or below a folder for the length of a block; yields the address.

    Args:
        folder: what lies below it can be asked for by its relative path.
        host: address to listen on.
        port: 0 takes a free one.
        auth: user:password that has to be given, if any.

    Raises:
        OSError: the port is taken.
    """
    server = ThreadingHTTPServer((host, port), partial(_Reports, folder.resolve(), auth))
    thread = Thread(target=server.serve_forever, name="reports", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Reports(BaseHTTPRequestHandler):
    def __init__(self, folder: Path, auth: str | None, *arguments: Any) -> None:
        self._folder = folder
        self._expected = b"Basic " + b64encode(auth.encode()) if auth else b""
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Answer with a report, or say why not."""
        given = self.headers.get("Authorization", "").encode("utf-8", "replace")
        if self._expected and not hmac.compare_digest(given, self._expected):
            self._answer(HTTPStatus.UNAUTHORIZED, b"", {"WWW-Authenticate": 'Basic realm="reports"'})
        elif (page := self._page()) is None:
            self._answer(HTTPStatus.NOT_FOUND, b"", {})
        else:
            headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": _POLICY}
            self._answer(HTTPStatus.OK, page.read_bytes(), headers)

    def _page(self) -> Path | None:
        """The report that is asked for; links that lead out of the folder lead nowhere."""
        asked = unquote(urlsplit(self.path).path).lstrip("/").replace("\0", "")
        path = (self._folder / asked).resolve()
        asked_for = path.name in (REPORT.page, SWEEP.page) and path.is_relative_to(self._folder) and path.is_file()
        return path if asked_for else None

    def _answer(self, status: HTTPStatus, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing on the terminal of `agd up`."""
