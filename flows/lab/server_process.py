"""The server's process: Prefect's server and the reports behind one guard.

    python -m flows.lab.server_process

Settings come from the environment: Prefect's own (`PREFECT_SERVER_API_HOST`, `PREFECT_SERVER_API_PORT`,
`PREFECT_SERVER_API_AUTH_STRING`, ...), `AGD_HOST_NAMES` (further names that the lab goes by, with commas between them)
and `AGD_HOME` (the folder whose reports it shows).
"""

import os
import socket
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from prefect.server.api.server import create_app
from prefect.server.schemas.ui import UISettings
from prefect.settings import get_current_settings
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from flows.lab.guard import Guard
from flows.lab.reports import REPORTS, Reports

HOST_NAMES = "AGD_HOST_NAMES"
_HOME = "AGD_HOME"


def guarded_app() -> Guard:
    """Prefect's server as the settings say, the reports, and the guard around both."""
    settings = get_current_settings().server.api
    app = create_app(final=True)
    _take_over_the_login(app)
    if folder := os.environ.get(_HOME):
        app.router.routes.insert(0, Route(f"{REPORTS}/{{path:path}}", Reports(Path(folder))))
    names = [name.strip() for name in os.environ.get(HOST_NAMES, "").split(",") if name.strip()]
    auth = settings.auth_string.get_secret_value() if settings.auth_string else None
    return Guard(app, [settings.host, socket.gethostname(), *names], auth)


def _take_over_the_login(app: FastAPI) -> None:
    """Tell the UI not to ask for the password: a browser that got as far as the UI has given it to the guard."""
    ui = next(route.app for route in app.routes if isinstance(route, Mount) and route.name == "ui")
    told = next(route for route in ui.routes if getattr(route, "path", "") == "/ui-settings")

    async def settings() -> UISettings:
        answer: UISettings = told.endpoint()
        return answer.model_copy(update={"auth": None})

    ui.router.routes.remove(told)
    ui.get(told.path)(settings)
    ui.router.routes.insert(0, ui.router.routes.pop())


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
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
