"""The reports below the lab's work folder as pages of its server, and nothing else of that folder."""

from http import HTTPStatus
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

_PAGES = ("report.html", "sweep.html", "shootout.html")
"""As in `flows.stages.report`, which this process does not load: PyTorch is behind it."""
_POLICY = (
    "sandbox allow-scripts allow-popups allow-downloads; default-src 'none'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""A report may be somebody else's: its page is of no origin, so that it can ask this server for nothing."""


class Reports:
    """ASGI application that shows every report.html, sweep.html and shootout.html at or below a folder.

    Args:
        folder: what lies below it can be asked for by its relative path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = self._page(Request(scope).path_params["path"]) if scope["method"] in ("GET", "HEAD") else None
        answer: Response = PlainTextResponse("there is no such report", HTTPStatus.NOT_FOUND)
        if page:
            answer = FileResponse(page, media_type="text/html; charset=utf-8")
        answer.headers["Content-Security-Policy"] = _POLICY
        await answer(scope, receive, send)

    def _page(self, asked: str) -> Path | None:
        """The report that is asked for; links that lead out of the folder lead nowhere."""
        try:
            path = (self._folder / asked.lstrip("/")).resolve()
            found = path.name in _PAGES and path.is_relative_to(self._folder) and path.is_file()
        except (OSError, ValueError, RuntimeError):  # a name too long, a NUL, no permission, links in a circle
            return None
        return path if found else None
