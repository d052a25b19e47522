"""The user's network settings, made fit for a lab: what it asks its own server goes to that server and nowhere else.

A university's or a company's shell sends everything through a proxy, this machine's own address too. Some settings
stop every client before its first request: a proxy of a kind that it does not know, certificates that are not there.
"""

import os
from collections.abc import Iterable, MutableMapping
from importlib.metadata import PackageNotFoundError, version
from urllib.parse import urlsplit

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_BYPASS = ("no_proxy", "NO_PROXY")
_KNOWN = ("", "http", "https")
_SOCKS = ("socks5", "socks5h")


def reach_directly(environment: MutableMapping[str, str], hosts: Iterable[str]) -> list[str]:
    """Change an environment so that these hosts are reached without a proxy, and clients can start at all.

    Args:
        environment: changed in place.
        hosts: names and addresses of the lab's server.

    Returns:
        A line for every variable that was left out.
    """
    lines = [_leave_out(environment, name, why) for name, why in _unusable(environment)]
    given = next((environment[name] for name in _BYPASS if environment.get(name)), "")
    if given.strip() != "*":
        wanted = [*filter(None, map(str.strip, given.split(","))), *hosts]
        environment.update(dict.fromkeys(_BYPASS, ",".join(dict.fromkeys(wanted))))
    return lines


def _leave_out(environment: MutableMapping[str, str], name: str, why: str) -> str:
    value = environment.pop(name)
    shown = urlsplit(value).scheme + "://..." if "://" in value else value
    return f"{name}={shown} is left out: {why}"


def _unusable(environment: MutableMapping[str, str]) -> list[tuple[str, str]]:
    """What no client could work with, and why."""
    found = []
    for name in [*_PROXIES, *map(str.lower, _PROXIES)]:
        scheme = urlsplit(environment.get(name, "")).scheme if "://" in environment.get(name, "") else ""
        if scheme in _SOCKS and not _is_installed("socksio"):
            found.append((name, "a SOCKS proxy needs the package socksio (pip install 'httpx[socks]')"))
        elif scheme not in (*_KNOWN, *_SOCKS):
            found.append((name, f"{scheme} is no kind of proxy that can be used"))
    found += [
        (name, "there is nothing at that path")
        for name in _CERTIFICATES
        if environment.get(name) and not os.path.exists(environment[name])
    ]
    return found


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
