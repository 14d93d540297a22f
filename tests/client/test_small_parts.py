"""Backoff, addresses, identities."""

from __future__ import annotations

import stat
from contextlib import nullcontext
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from coordinator.client.address import check_secrecy, client_url, is_loopback, page_url
from coordinator.client.backoff import Backoff
from coordinator.client.identity import load_identity
from coordinator.client.session import Session, SessionEnded
from coordinator.errors import ConfigError
from coordinator.wire.client import Hello


def test_backoff_doubles_up_to_its_most() -> None:
    backoff = Backoff(1, 8, chance=lambda: 1.0)
    assert [backoff.next() for _ in range(5)] == [1, 2, 4, 8, 8]
    backoff.reset()
    assert backoff.next() == 1


def test_backoff_is_jittered() -> None:
    assert Backoff(1, 8, chance=lambda: 0.0).next() == 0.5
    assert Backoff(1, 8).next() != Backoff(1, 8).next()


def test_backoff_follows_the_server() -> None:
    assert Backoff(1, 8, chance=lambda: 0.0).next(30) == 30
    assert Backoff(1, 8, chance=lambda: 1.0).next(30) == pytest.approx(33)
    assert Backoff(1, 8, chance=lambda: 0.0).next(0.2) == 0.2


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("ws://h:8765", "ws://h:8765/v1/client"),
        ("ws://h:8765/v1/client", "ws://h:8765/v1/client"),
        ("http://h:1/", "ws://h:1/v1/client"),
        ("https://h/below", "wss://h/below/v1/client"),
        ("h:8765", "ws://h:8765/v1/client"),
        ("wss://[::1]:9", "wss://[::1]:9/v1/client"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert client_url(text) == url


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("ws://127.0.0.1:8765", "http://127.0.0.1:8765/#/volunteers/ada-7"),
        ("https://example.org/work/", "https://example.org/work/#/volunteers/ada-7"),
        ("wss://someone:secret@[::1]:9/v1/client", "https://[::1]:9/#/volunteers/ada-7"),
    ],
)
def test_the_address_of_a_volunteers_page_holds_no_secret(text: str, page: str) -> None:
    assert page_url(client_url(text), "ada-7") == page


@pytest.mark.parametrize("text", ["", "ftp://h", "ws://", "ws://h:x", "ws://h:99999", "ws://h/?a=1"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ConfigError):
        client_url(text)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("ws://127.0.0.1:1", True),
        ("ws://127.9.9.9", True),
        ("ws://[::1]:1", True),
        ("ws://LOCALHOST:1", True),
        ("ws://127.evil.example", False),
        ("ws://localhost.evil.example", False),
        ("ws://192.0.2.1", False),
    ],
)
def test_a_secret_stays_on_this_machine_without_tls(url: str, here: bool) -> None:
    assert is_loopback(url) is here
    check_secrecy(url.replace("ws://", "wss://"), plaintext=False)
    check_secrecy(url, plaintext=True)
    with nullcontext() if here else pytest.raises(ConfigError, match="--plaintext"):
        check_secrecy(url, plaintext=False)


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """The secret is for the server that was named, not for where it sends the daemon."""
    visitors: list[str] = []

    async def elsewhere(connection: ServerConnection) -> None:
        visitors.append(str(await connection.recv()))

    async with serve(elsewhere, "127.0.0.1", 0) as other:
        there = f"ws://127.0.0.1:{other.sockets[0].getsockname()[1]}/v1/client"

        def redirect(connection: ServerConnection, request: Request) -> Response:
            return Response(307, "Temporary Redirect", Headers({"Location": there}))

        async with serve(elsewhere, "127.0.0.1", 0, process_request=redirect) as named:
            url = f"ws://127.0.0.1:{named.sockets[0].getsockname()[1]}/v1/client"
            hello = Hello(protocol=1, client_id="ada", secret="s" * 32)
            with pytest.raises(SessionEnded, match="HTTP 307"):
                await Session.open(url, hello, None)
    assert visitors == []


def test_identity_is_made_once(tmp_path: Path) -> None:
    first = load_identity(tmp_path / "new", "ada")
    assert first.client_id == "ada"
    assert len(bytes.fromhex(first.secret)) == 32
    assert load_identity(tmp_path / "new", "ada") == first
    file = tmp_path / "new" / "clients" / "ada.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["ada.json"]
    assert first.secret not in repr(first)


def test_default_identity_keeps_its_name(tmp_path: Path) -> None:
    first = load_identity(tmp_path)
    assert first.client_id.startswith("volunteer-")
    assert load_identity(tmp_path) == first


@pytest.mark.parametrize("client_id", ["", "a/b", "a b", "x" * 65, "ä"])
def test_bad_client_ids(tmp_path: Path, client_id: str) -> None:
    with pytest.raises(ConfigError):
        load_identity(tmp_path, client_id)


def test_damaged_identity(tmp_path: Path) -> None:
    (tmp_path / "default.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        load_identity(tmp_path)
