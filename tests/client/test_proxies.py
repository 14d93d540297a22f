"""The one way out: the session and the checkers go through the same proxy, or say why it cannot be used."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from coordinator.client import Backoff, Client, SessionEnded
from coordinator.client.checkers import UpstreamOut
from coordinator.client.proxies import proxy_for, without_login
from coordinator.client.session import Session
from coordinator.client.x_api import dm_check
from coordinator.errors import ConfigError
from coordinator.standin import StandIn
from coordinator.wire.client import Hello

from .proxy import HttpProxy, SocksProxy
from .scripted import ScriptedServer

Set = Callable[..., None]
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
ITEM = {"item": 1, "key": "RoyBlunt"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Sets the proxies of the environment, and no others."""
    for name in (*VARIABLES, "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

    def set_(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_


def port(url: str) -> int:
    return urlsplit(url).port or 0


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        ("https://api.example", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("wss://work.example/v1/client", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://api.example", {"https_proxy": "p:1"}, "http://p:1"),
        ("https://api.example", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://api.example", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("ws://work.example", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("https://api.example", {"ALL_PROXY": "http://p:2"}, "http://p:2"),
        ("wss://work.example", {"ALL_PROXY": "http://p:2"}, "http://p:2"),
        ("https://api.example", {"ALL_PROXY": "http://p:2", "HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://api.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "api.example"}, None),
        ("https://api.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example,other"}, None),
        ("wss://work.example:8765", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "work.example:8765"}, None),
        ("wss://work.example:8766", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "work.example:8765"}, "http://p:1"),
        ("https://api.example", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("wss://10.1.2.3:8765", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None),
        ("wss://192.0.2.1", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://p:1"),
        ("wss://[fd00::1]:8765", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "fd00::/8"}, None),
        ("ws://127.0.0.1:8765", {"ALL_PROXY": "http://p:1"}, None),
        ("http://localhost:9000", {"ALL_PROXY": "http://p:1"}, None),
    ],
)
def test_the_way_to_an_address(environment: Set, url: str, variables: dict[str, str], proxy: str | None) -> None:
    environment(**variables)
    assert proxy_for(url) == proxy


@pytest.mark.parametrize("value", ["ftp://p:1", "http://", "http://p:port", "socks4://p:1"])
def test_a_proxy_that_cannot_be_used_is_a_sentence(environment: Set, value: str, tmp_path: Path) -> None:
    environment(ALL_PROXY=value)
    with pytest.raises(ConfigError, match="ALL_PROXY names no proxy"):
        dm_check("https://api.example")
    with pytest.raises(ConfigError, match="ALL_PROXY names no proxy"):
        Client("wss://work.example", data=tmp_path)


def test_socks_without_its_packages_is_a_sentence(
    environment: Set, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment(ALL_PROXY="socks5h://me:secret@p:1080")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"socks5h://p:1080, which needs .* coordinator\[socks\]") as refused:
        dm_check("https://api.example")
    assert "secret" not in str(refused.value)
    with pytest.raises(ConfigError, match="SOCKS"):
        Client("wss://work.example", data=tmp_path)


def test_logins_are_not_shown() -> None:
    assert without_login("http://me:secret@proxy:3128") == "http://proxy:3128"


@pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])
async def test_checkers_go_through_it(environment: Set, standin: StandIn, kind: type[HttpProxy]) -> None:
    async with kind(port(standin.url)) as proxy:
        environment(ALL_PROXY=proxy.url)
        check = dm_check("http://api.example:80", "t")
        assert "dm" in await check(ITEM, {"source": "me"})
        await check.close()
        assert proxy.asked[0].partition(":")[0] == "api.example"


@pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])
async def test_sessions_go_through_it(
    environment: Set, server: ScriptedServer, tmp_path: Path, kind: type[HttpProxy]
) -> None:
    async with kind(port(server.url)) as proxy:
        environment(ALL_PROXY=proxy.url)
        async with Client("ws://work.example:8765", data=tmp_path, plaintext=True) as client:
            (await server.work()).carry_on()
            assert (await client.welcome()).protocol == 1
        assert proxy.asked == ["work.example:8765"]


async def test_a_login_reaches_the_proxy(environment: Set, standin: StandIn) -> None:
    async with HttpProxy(port(standin.url)) as proxy:
        environment(HTTP_PROXY=proxy.url.replace("//", "//me:secret@"))
        check = dm_check("http://api.example", "t")
        await check(ITEM, {"source": "me"})
        await check.close()
        assert proxy.logins == ["Basic bWU6c2VjcmV0"]


async def test_a_proxy_that_refuses_is_named(environment: Set, tmp_path: Path, caplog: Any) -> None:
    async with HttpProxy(1, refusal="407 Proxy Authentication Required") as proxy:
        environment(ALL_PROXY=proxy.url.replace("//", "//me:secret@"))
        check = dm_check("https://api.example", "t")
        with pytest.raises(UpstreamOut, match=r"407.*by the proxy http://127") as out:
            await check(ITEM, {"source": "me"})
        assert "secret" not in str(out.value)
        await check.close()

        async with Client("wss://work.example", data=tmp_path, backoff=Backoff(0.01, 0.01)) as client:
            while len(proxy.logins) < 3:  # it goes on trying
                with pytest.raises(TimeoutError):
                    await _welcome_within(client, 0.05)
    assert "407" in caplog.text
    assert "by the proxy http://127" in caplog.text


@pytest.mark.parametrize(
    ("proxy", "why"),
    [
        ("http://127.0.0.1:9", "nothing listens at the proxy http://127.0.0.1:9: connection refused"),
        ("http://no-such-proxy.invalid:3128", "name of the proxy http://no-such-proxy.invalid:3128 is not found (DNS)"),
        ("socks5h://127.0.0.1:9", "the proxy socks5h://127.0.0.1:9"),
    ],
)
async def test_a_proxy_that_is_not_there_is_blamed_and_not_what_is_behind_it(
    environment: Set, proxy: str, why: str
) -> None:
    environment(ALL_PROXY=proxy.replace("//", "//me:secret@"))
    check = dm_check("http://api.example", "t")
    with pytest.raises(UpstreamOut) as out:
        await check(ITEM, {"source": "me"})
    await check.close()

    with pytest.raises(SessionEnded) as ended:
        await Session.open("wss://work.example/v1/client", Hello(protocol=1, client_id="ada", secret="s" * 32), True)
    for said, address in ((str(out.value), "api.example"), (str(ended.value), "work.example")):
        assert why in said
        assert address in said
        assert f"at {address}" not in said
        assert f"name of {address}" not in said
        assert "secret" not in said


async def _welcome_within(client: Client, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await client.welcome()
