"""What a lab is: its home folder, its address, and the environment of its processes."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from prefect.client.orchestration import SyncPrefectClient

from agd_core.basics.errors import InputError
from agd_core.basics.safe_files import printable
from flows.lab.network import LOOPBACK_NAMES
from flows.lab.private import PASSWORD_FILE, close_to_others, make_password, read_password
from flows.lab.timezone import VARIABLE as TIMEZONE
from flows.lab.timezone import schedule_timezone

_SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "flows.lab.event_ordering",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "2",
}
LOGIN = "/login"
"""Path that leads to the UI; a link to it may hold the password, with which the UI's own pages cannot be loaded."""
REPORTS = "/reports"
"""Path below which the server shows reports."""
_AUTH = "PREFECT_SERVER_API_AUTH_STRING"
_NOT_INHERITED = (
    *("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", _AUTH, "PREFECT_PROFILE", "PREFECT_CLOUD_"),
    *("PREFECT__", "AGD_NOTIFY_URL"),
)
_OUR_PACKAGES = ("agd_core", "storage", "flows")
_MARK = "flows/lab/lab.py"
"""In a checkout of ours: there, flows may import from the work folder, which comes first on their path."""


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
    folders: tuple[Path, ...] = ()
    """Further folders below which runs may write, beside the work folder."""
    password: bool = True
    """Whether the server asks for one."""

    def __post_init__(self) -> None:
        if not self.password and self.host not in LOOPBACK_NAMES:
            raise InputError(f"--host {self.host} lets others in, and --no-password lets them do what they like")
        if not self.password and os.environ.get(_AUTH):
            raise InputError(f"--no-password, but {_AUTH} sets one")
        if self.auth and ":" not in self.auth:
            raise InputError(f"{_AUTH} has to be of the form user:password")
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
    def login_url(self) -> str:
        """A link that gives the password by itself; empty where there is none."""
        user, _, password = (self.auth or "").partition(":")
        return self.url.replace("//", f"//{quote(user, '')}:{quote(password, '')}@", 1) + LOGIN if self.auth else ""

    def how_to_log_in(self) -> list[str]:
        """What a person needs to know for it, in lines."""
        if not self.password:
            return ["no password: every user and every program of this machine may start runs and read what they made"]
        if os.environ.get(_AUTH):
            return [f"the user and the password are those of {_AUTH}"]
        user, _, password = (self.auth or "").partition(":")
        return [
            f"log in as {user} with the password {password}, or by this link: {self.login_url}",
            f"the password stays the same and is kept in {self.folder / PASSWORD_FILE}",
        ]

    @property
    def auth(self) -> str | None:
        """user:password, where the server asks for one: the user's own, else the one made at the first start."""
        return (os.environ.get(_AUTH) or read_password(self.folder)) if self.password else None

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
            "PREFECT_SERVER_API_HOST": self.host,
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": self.url,
            "PREFECT_SERVER_UI_API_URL": "/api",
            "AGD_HOME": str(self.work_folder),
            TIMEZONE: schedule_timezone(),
            "AGD_FOLDERS": os.pathsep.join(map(str, (self.work_folder, *self.folders))),
            "AGD_REPORTS_URL": f"{self.url}{REPORTS}",
        }
        auth = dict.fromkeys(("PREFECT_API_AUTH_STRING", _AUTH), self.auth) if self.auth else {}
        return inherited | _SERVER_SETTINGS | own | auth

    def make_folder(self) -> None:
        """Make the folder of its own files, and close it to other users.

        Raises:
            InputError: it cannot be made, closed or written to, or a work folder's name would be taken for two.
        """
        for folder in (self.work_folder, *self.folders):
            if os.pathsep in str(folder):
                raise InputError(f"{printable(folder)}: a lab's folder can have no {os.pathsep!r} in its name")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.folder / "lock").touch()
            close_to_others(self.home, self.folder)
            if self.password:
                make_password(self.folder)
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
