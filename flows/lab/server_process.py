"""The server's process: Prefect's server and the reports behind one guard.

    python -m flows.lab.server_process

Settings come from the environment: Prefect's own (`PREFECT_SERVER_API_HOST`, `PREFECT_SERVER_API_PORT`,
`PREFECT_SERVER_API_AUTH_STRING`, ...), `AGD_HOST_NAMES` (further names that the lab goes by, with commas between them)
and `AGD_HOME` (the folder whose reports it shows).
"""

import os
import socket
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import BaseRoute, Mount, Route

from flows.lab.guard import Guard
from flows.lab.lab import LOGIN, REPORTS
from flows.lab.reports import Reports
from flows.lab.sqlite import wait_for_turns

HOST_NAMES = "AGD_HOST_NAMES"
_HOME = "AGD_HOME"
_UI, _UI_SETTINGS = "/v2/", "/ui-settings"


def guarded_app() -> Guard:
    """Prefect's server as the settings say, the reports, and the guard around both."""
    settings = get_current_settings().server.api
    app = create_app(final=True)
    ours: list[BaseRoute] = [_ui_settings(app), Route(LOGIN, _to_the_ui)]
    if folder := os.environ.get(_HOME):
        ours.append(Route(f"{REPORTS}/{{path:path}}", Reports(Path(folder))))
    app.router.routes[:0] = ours
    names = [name.strip() for name in os.environ.get(HOST_NAMES, "").split(",") if name.strip()]
    auth = settings.auth_string.get_secret_value() if settings.auth_string else None
    return Guard(app, [settings.host, socket.gethostname(), *names], auth)


def _ui_settings(app: FastAPI) -> Route:
    """What the UI asks first, without a login of its own: a browser that is there has given the guard the password."""
    ui: Any = next(route.app for route in app.routes if isinstance(route, Mount) and route.name == "ui")
    settings = next(route.endpoint for route in ui.routes if getattr(route, "path", "") == _UI_SETTINGS)

    def answer(request: Request) -> JSONResponse:
        return JSONResponse(settings().model_dump(mode="json") | {"auth": None})

    return Route(_UI_SETTINGS, answer)


def _to_the_ui(request: Request) -> RedirectResponse:
    """To the UI, by an address without the password that the link to here may hold."""
    return RedirectResponse(f"{request.url.scheme}://{request.url.netloc.rpartition('@')[2]}{_UI}", 303)


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    wait_for_turns()
    settings = get_current_settings().server
    uvicorn.run(
        guarded_app(),
        host=settings.api.host,
        port=settings.api.port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
        server_header=False,
    )


if __name__ == "__main__":
    main()
