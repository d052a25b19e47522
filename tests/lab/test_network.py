"""Shells of universities and companies: proxies, SOCKS, certificates that are not there."""

import httpx
import pytest

from flows.lab import network
from flows.lab.network import LOOPBACK_NAMES, reach_directly

NOWHERE = "http://127.0.0.1:9"
PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def proxies_of(environment, monkeypatch) -> httpx.Client:
    """A client in this environment; it cannot be made in some."""
    for name in (*PROXIES, "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return httpx.Client()


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("bypass", [{}, {"NO_PROXY": "intra.example.org"}, {"no_proxy": ""}])
def test_the_labs_own_addresses_are_reached_without_a_proxy(name, bypass, monkeypatch):
    environment = {name: NOWHERE} | bypass
    assert reach_directly(environment, (*LOOPBACK_NAMES, "10.1.2.3")) == []
    assert environment[name] == NOWHERE
    with proxies_of(environment, monkeypatch) as client:
        for url in ("http://127.0.0.1:4200", "http://localhost:4200", "http://[::1]:4200", "http://10.1.2.3:4200"):
            assert client._transport_for_url(httpx.URL(url)) is client._transport, url
        elsewhere = client._transport_for_url(
            httpx.URL("http://example.org" if "s_" not in name.lower() else "https://example.org")
        )
        assert elsewhere is not client._transport


def test_what_was_bypassed_before_still_is(monkeypatch):
    environment = {"HTTP_PROXY": NOWHERE, "NO_PROXY": "intra.example.org, .local"}
    reach_directly(environment, LOOPBACK_NAMES)
    assert environment["no_proxy"] == environment["NO_PROXY"] == "intra.example.org,.local,127.0.0.1,localhost,::1"
    reach_directly(environment, LOOPBACK_NAMES)
    assert environment["NO_PROXY"].count("localhost") == 1


def test_no_proxy_at_all_stays_so():
    environment = {"HTTP_PROXY": NOWHERE, "NO_PROXY": "*"}
    reach_directly(environment, LOOPBACK_NAMES)
    assert environment == {"HTTP_PROXY": NOWHERE, "NO_PROXY": "*"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks4://127.0.0.1:9"),
        ("all_proxy", "gopher://user:secret@127.0.0.1:9"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem"),
        ("SSL_CERT_DIR", "/nowhere"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem"),
    ],
)
def test_what_no_client_could_start_with_is_left_out_and_named(name, value, monkeypatch):
    environment = {name: value}
    (line,) = reach_directly(environment, LOOPBACK_NAMES)
    assert line.startswith(f"{name}=")
    assert "secret" not in line
    assert name not in environment
    proxies_of(environment, monkeypatch).close()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_without_its_package_is_left_out_and_the_package_named(scheme, monkeypatch):
    monkeypatch.setattr(network, "_is_installed", lambda package: False)
    environment = {"ALL_PROXY": f"{scheme}://127.0.0.1:9"}
    (line,) = reach_directly(environment, LOOPBACK_NAMES)
    assert "socksio" in line
    assert "ALL_PROXY" not in environment


def test_an_ordinary_environment_loses_nothing(tmp_path):
    (tmp_path / "ca.pem").touch()
    ordinary = {"HTTPS_PROXY": "proxy.example.org:3128", "SSL_CERT_FILE": str(tmp_path / "ca.pem"), "HOME": "/root"}
    environment = dict(ordinary)
    assert reach_directly(environment, LOOPBACK_NAMES) == []
    assert ordinary.items() <= environment.items()
