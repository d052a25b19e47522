"""What a lab is: its home folder, its address, and the environment of its processes."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient

from agd_core.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "flows.lab.event_ordering",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "2",
}
_NOT_INHERITED = ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_CLOUD_", "PREFECT__")
_OUR_PACKAGES = ("agd_core", "storage", "flows")
_MARK = "flows/lab/lab.py"
"""In a checkout of ours: there, flows may import from the work folder, which comes first on their path."""
_AUTH = "PREFECT_SERVER_API_AUTH_STRING"


class LabError(Exception):
    """The lab cannot go on; the message is one line for a person."""


@dataclass(frozen=True)
class Lab:
    """Where a lab lives and answers. Its own files are in a folder of its own inside Prefect's home."""

    home: Path
    """PREFECT_HOME of its server and worker: database, results, leases."""
    host: str
    port: int
    work_folder: Path
    """Where flows run: relative outputs land here."""
    reports_url: str = ""
    """Where reports below the work folder are served, if they are."""

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not self.auth:
            raise InputError(f"--host {self.host} lets others in: set {_AUTH}=user:password first")
        if not (self.work_folder / _MARK).is_file():
            for name in _OUR_PACKAGES:
                if importable := [*self.work_folder.glob(f"{name}.py"), *self.work_folder.glob(f"{name}/__init__.py")]:
                    raise InputError(f"flows would import {importable[0]} instead of ours; start agd up elsewhere")

    @property
    def folder(self) -> Path:
        """Logs, the lock, and who is up."""
        return self.home / "agd"

    @property
    def url(self) -> str:
        """Where processes of this machine find the server, without a path."""
        reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(self.host, self.host)  # noqa: S104
        return f"http://{reachable}:{self.port}"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    @property
    def ui_url(self) -> str:
        return f"{self.url}/v2"

    @property
    def auth(self) -> str | None:
        """user:password, where the server asks for one."""
        return os.environ.get(_AUTH) or None

    @property
    def worker_name(self) -> str:
        return f"gpu-{socket.gethostname()}"

    def client(self) -> SyncPrefectClient:
        """A client of this server, whatever profile the user has."""
        return SyncPrefectClient(self.api_url, auth_string=self.auth)

    def environment(self) -> dict[str, str]:
        """The environment of server, worker and flows: the user's, without what would lead them to another server."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        own = {
            "PREFECT_HOME": str(self.home),
            "PREFECT_PROFILES_PATH": str(self.folder / "profiles.toml"),
            "PREFECT_LOCAL_STORAGE_PATH": str(self.home / "storage"),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_UI_URL": self.ui_url,
            "PREFECT_SERVER_UI_API_URL": "/api",
            "AGD_HOME": str(self.work_folder),
            "AGD_REPORTS_URL": self.reports_url,
        }
        auth = {"PREFECT_API_AUTH_STRING": self.auth} if self.auth else {}
        return inherited | _SERVER_SETTINGS | own | auth

    def make_folder(self) -> None:
        """Make the folder of its own files.

        Raises:
            InputError: it cannot be made or written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "lock").touch()
        except OSError as error:
            raise InputError(f"home {self.home} cannot be used: {error.strerror}") from error

    def require_free_port(self) -> None:
        """Refuse a port that somebody listens on.

        Raises:
            InputError: it is taken, or this host has no such address.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise InputError(f"{self.host}:{self.port} cannot be used ({error.strerror}); try --port") from error
