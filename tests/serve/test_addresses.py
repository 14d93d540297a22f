"""Addresses of connections, and the hosts that a request may name."""

from __future__ import annotations

import asyncio
import http.client
import socket
import urllib.error
import urllib.request
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from coordinator.cli.admin_client import open_channel
from coordinator.client import Client
from coordinator.client.session import SessionEnded
from coordinator.config import Settings
from coordinator.errors import Refused
from coordinator.serve.addresses import HostCheck, client_block, forwarded_for, forwarded_host, is_same_origin
from tests.conftest import StartServer
from tests.harness import Peer, Server

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["192.0.2.9", "198.51.100.1", "10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::/64"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::/64"),
        ("10.0.0.1", ['for="[2001:db8::1]:4711"'], "2001:db8::/64"),
        ("10.0.0.1", ["for=198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:203.0.113.7", [], "203.0.113.7"),
        ("fe80::1%eth0", [], "fe80::/64"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1", "for=_hidden"], "10.0.0.1"),
        ("::1", [], "::1"),
        ("local", ["198.51.100.1"], "local"),
    ],
)
def test_a_client_is_known_by_its_address_or_block(peer: str, forwarded: list[str], client: str) -> None:
    assert client_block(peer, forwarded, PROXIES) == client


def test_a_port_makes_no_new_address() -> None:
    assert len({client_block("10.0.0.1", [f"198.51.100.1:{port}"], PROXIES) for port in range(1024, 1034)}) == 1


@pytest.mark.parametrize(
    ("lines", "hops"),
    [
        ([], []),
        ([("X-Forwarded-For", "a, b"), ("X-Forwarded-For", "c")], ["a", " b", "c"]),
        ([("Forwarded", "for=a;proto=http, for=b"), ("Forwarded", "by=c;for=d")], ["for=a", "for=b", "for=d"]),
        ([("Forwarded", "for=a"), ("X-Forwarded-For", "b")], ["b"]),
    ],
)
def test_proxies_note_addresses_in_one_of_two_headers(lines: list[tuple[str, str]], hops: list[str]) -> None:
    headers = Headers()
    for name, value in lines:
        headers[name] = value
    assert forwarded_for(headers) == hops


@pytest.mark.parametrize(
    "host", ["localhost", "localhost.", "LOCALHOST:80", "127.0.0.1:8765", "127.9.9.9", "[::1]", "[::1]:8765"]
)
def test_loopback_serves_the_names_of_loopback(host: str) -> None:
    assert HostCheck([], loopback_only=True).allows(host)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "[::1].evil.example",
        "127.0.0.1%evil",
        "[::1%evil]",
        "for=127.0.0.1",
        "evil@localhost",
        "localhost#x",
        "evil.example",
        "localhost.evil.example",
        "192.0.2.1",
        "[::1",
        "a@b",
    ],
)
def test_loopback_serves_no_other_name(host: str | None) -> None:
    assert not HostCheck([], loopback_only=True).allows(host)


def test_elsewhere_addresses_and_allowed_names_are_served() -> None:
    hosts = HostCheck(["work.example"], loopback_only=False)
    assert all(hosts.allows(host) for host in ("192.0.2.1:8765", "work.example", "WORK.example:443", "127.0.0.1"))
    assert not any(hosts.allows(host) for host in ("evil.example", "x.work.example"))


def get(server: Server, path: str, *headers: tuple[str, str], port: int | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port or server.node.port, timeout=5)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


async def test_a_page_of_a_stranger_reaches_no_channel_by_a_name_of_its_own(start_server: StartServer) -> None:
    server = await start_server(allowed_hosts="work.example")
    for path in ("/v1/stats", "/v1/admin", "/v1/client"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://evil.example:{server.node.port}{path}", host="127.0.0.1", port=server.node.port)
        assert refused.value.response.status_code == 403
    assert await asyncio.to_thread(get, server, "/", ("Host", "evil.example:8765")) == 403
    assert await asyncio.to_thread(get, server, "/", ("Host", "work.example")) == 200
    assert await asyncio.to_thread(get, server, "/readyz", ("Host", "evil.example")) == 200
    assert await asyncio.to_thread(get, server, "/metrics", ("Host", "any"), port=server.node.ops_port) == 200


@pytest.mark.parametrize("name", ["Host", "Origin", "Upgrade"])
async def test_a_header_that_stands_there_twice_is_the_senders_fault(
    server: Server, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = [("Host", "localhost")] if name != "Host" else []
    more = [("Upgrade", "websocket")] if name == "Origin" else []
    twice = [(name, "localhost"), (name, "localhost")]
    assert await asyncio.to_thread(get, server, "/v1/stats", *lines, *more, *twice) == 400
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
async def test_open_to_this_machine_is_not_open_to_what_a_proxy_passes_on(server: Server, header: str) -> None:
    value = {"Forwarded": "for=203.0.113.7", "Via": "1.1 proxy"}.get(header, "203.0.113.7")
    stranger = await server.client(additional_headers={header: value})
    await stranger.hello("stranger")
    assert await stranger.refused("register", screen_name="stranger") == "bad_registration"
    viewer = await Peer.open(f"{server.url}/v1/stats", server.stack, additional_headers={header: value})
    assert await viewer.refused("hello", protocol=1) == "unauthorized"

    here = await server.client()
    await here.hello("stranger")
    await here.ok("register", screen_name="stranger")


async def test_who_opens_a_node_on_purpose_has_it_open_behind_a_proxy(start_server: StartServer) -> None:
    server = await start_server(registration="open", viewers="open")
    stranger = await server.client(additional_headers={"X-Forwarded-For": "203.0.113.7"})
    await stranger.hello("stranger")
    await stranger.ok("register", screen_name="stranger")


def test_a_node_with_a_proxy_before_it_is_not_open_by_default() -> None:
    settings = Settings(trusted_proxies="127.0.0.1")
    assert (settings.registration, settings.viewers) == ("token", "token")


@pytest.mark.parametrize(
    ("lines", "host"),
    [
        ([], None),
        ([("X-Forwarded-Host", "work.example:8443")], "work.example:8443"),
        ([("X-Forwarded-Host", "evil.example, work.example")], "work.example"),
        ([("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Host", "work.example")], "work.example"),
        ([("Forwarded", "for=a;host=evil.example, for=b;Host=work.example;proto=https")], "work.example"),
        ([("Forwarded", 'host="work.example:8443"')], "work.example:8443"),
        ([("Forwarded", "for=a")], None),
    ],
)
def test_the_nearest_proxy_notes_the_host(lines: list[tuple[str, str]], host: str | None) -> None:
    headers = Headers()
    for name, value in lines:
        headers[name] = value
    assert forwarded_host(headers) == host


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://work.example", "work.example"),
        ("https://work.example", "work.example:443"),
        ("http://work.example", "WORK.example:80"),
        ("https://work.example:8443", "work.example:8443"),
        ("https://[::1]", "[::1]:443"),
    ],
)
def test_a_default_port_makes_no_other_origin(origin: str, host: str) -> None:
    assert is_same_origin(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://work.example", "work.example:80"),
        ("https://work.example", "work.example:8443"),
        ("https://work.example:8443", "work.example"),
        ("https://evil.example", "work.example"),
        ("ftp://work.example", "work.example"),
        ("null", "null"),
        ("https://", ""),
    ],
)
def test_another_host_or_port_is_another_origin(origin: str, host: str) -> None:
    assert not is_same_origin(origin, host)


async def refused(server: Server, origin: str, **headers: str) -> str | None:
    """The text with which a page's handshake is refused, None if it is accepted; a GET must tell the same."""
    host, port = "127.0.0.1", server.node.port
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    ask = urllib.request.Request(f"http://{host}:{port}/v1/stats?origin={quote(origin)}", headers=named)
    plainly = await asyncio.to_thread(status_and_text, ask)
    try:
        own = named.pop("Host", f"{host}:{port}")
        async with connect(
            f"ws://{own}/v1/stats", host=host, port=port, origin=Origin(origin), additional_headers=named, proxy=None
        ):
            assert plainly[0] == 426
            return None
    except InvalidStatus as failure:
        answer = failure.response
    assert plainly == (answer.status_code, (answer.body or b"").decode())
    return plainly[1]


def status_and_text(request: urllib.request.Request) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as failure:
        return failure.code, failure.read().decode()


PAGE = "https://work.example"


async def test_a_page_is_let_in_however_a_proxy_names_the_host(start_server: StartServer) -> None:
    server = await start_server(allowed_hosts="work.example", trusted_proxies="127.0.0.1")
    assert await refused(server, PAGE, Host="work.example") is None
    assert await refused(server, PAGE, Host="work.example:443") is None
    assert await refused(server, PAGE, X_Forwarded_Host="work.example") is None
    assert await refused(server, PAGE, Forwarded="for=203.0.113.7;host=work.example:443") is None
    assert await refused(server, "https://evil.example", X_Forwarded_Host="work.example")
    assert await refused(server, "https://evil.example", X_Forwarded_Host="evil.example")


async def test_a_refused_page_is_told_what_to_set(
    start_server: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server = await start_server()
    told = await refused(server, PAGE)
    assert told is not None
    assert "--allowed-origins https://work.example" in told
    assert f"another host, 127.0.0.1:{server.node.port}" in told
    assert "X-Forwarded-Host" in told
    assert told.strip() in capsys.readouterr().out

    believed_by_nobody = await refused(server, PAGE, X_Forwarded_Host="work.example")
    assert believed_by_nobody is not None
    assert "What 127.0.0.1 says in X-Forwarded-Host counts once trusted_proxies" in believed_by_nobody

    other = await refused(server, PAGE, Host="work.example:443")
    assert other is not None
    assert "does not serve work.example:443" in other
    assert "--allowed-hosts" in other


async def test_programs_are_told_by_the_server_why_they_are_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **named: look_up("127.0.0.1", *more, **named))
    monkeypatch.setenv("NO_PROXY", "*")
    place = f"ws://elsewhere.example:{server.node.port}"
    with pytest.raises(Refused, match=r"does not serve elsewhere\.example.*--allowed-hosts"):
        await open_channel(f"{place}/v1/admin")
    with pytest.raises(SessionEnded, match=r"HTTP 403.*does not serve elsewhere\.example"):
        async with Client(place, data=tmp_path, plaintext=True) as client:
            await client.welcome()


async def test_what_it_is_told_of_cannot_fill_the_log(
    start_server: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server = await start_server()
    capsys.readouterr()
    for _ in range(15):
        assert await asyncio.to_thread(get, server, "/", ("Host", "evil.example\x9b2J" + "x" * 1000)) == 403
    said = capsys.readouterr().out
    assert 10 <= said.count("a request was refused") <= 12
    assert "\x9b" not in said
    assert "x" * 200 not in said


async def test_an_allowed_origin_may_bear_the_default_port(start_server: StartServer) -> None:
    server = await start_server(allowed_origins="https://other.example:443")
    assert await refused(server, "https://other.example") is None
