"""The X API checkers against a small HTTP server on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import pytest

from coordinator.client.checkers import Checker, CheckFailed, UpstreamLimited, close_checker
from coordinator.client.http_pool import HttpResponse
from coordinator.client.x_api import Allowance, dm_check, follower_check, following_check
from coordinator.errors import ConfigError

T = TypeVar("T", bound=Checker)
Closing = Callable[[T], T]
Answer = tuple[int, dict[str, str], Any]
PROFILE = {"source": "me"}


class Upstream:
    """The requests that the server got, and its answers; `answer` is called with the path and the query."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str], str | None]] = []
        self.connections = 0
        self.answer: Callable[[str, dict[str, str]], Answer] = lambda path, query: (200, {}, {})
        self.url = ""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    state = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            state.connections += 1

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            state.seen.append((parts.path, query, self.headers.get("Authorization")))
            status, headers, body = state.answer(parts.path, query)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(raw))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_address[1]}/base/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def closing() -> Iterator[Closing[Any]]:
    """Closes at the end of the test what it is called with."""
    with ExitStack() as stack:

        def keep(checker: Any) -> Any:
            stack.callback(close_checker, checker)
            return checker

        yield keep


def item(key: str) -> dict[str, Any]:
    return {"item": 1, "key": key}


async def test_dm_check(upstream: Upstream, closing: Closing[Any]) -> None:
    def answer(_path: str, query: dict[str, str]) -> Answer:
        target = query["target_screen_name"]
        if target == "nobody":
            return 404, {}, {"errors": [{"code": 50, "message": "User not found."}]}
        return 200, {}, {"relationship": {"source": {"can_dm": target == "open"}, "target": {}}}

    upstream.answer = answer
    check = closing(dm_check(upstream.url, "secret"))
    assert await check(item("open"), PROFILE) == {"dm": "DM"}
    assert await check(item("shut"), PROFILE) == {"dm": "NON_DM"}
    assert await check(item("nobody"), PROFILE) == {"dm": "UNKNOWN"}

    path, query, token = upstream.seen[0]
    assert path == "/base/1.1/friendships/show.json"
    assert query == {"source_screen_name": "me", "target_screen_name": "open"}
    assert token == "Bearer secret"
    assert upstream.connections == 1  # kept alive


async def test_limit_follows_the_headers(upstream: Upstream, closing: Closing[Any]) -> None:
    upstream.answer = lambda path, query: (429, {"x-rate-limit-reset": str(int(time.time()) + 100)}, {})
    check = closing(dm_check(upstream.url))
    with pytest.raises(UpstreamLimited) as limited:
        await check(item("a"), PROFILE)
    assert 90 < limited.value.retry_after <= 101
    with pytest.raises(UpstreamLimited):
        await check(item("a"), PROFILE)
    assert len(upstream.seen) == 1  # the second one was not even sent
    upstream.answer = lambda path, query: (429, {"retry-after": "17"}, {})
    with pytest.raises(UpstreamLimited) as limited:
        await closing(dm_check(upstream.url))(item("a"), PROFILE)
    assert limited.value.retry_after == pytest.approx(17, abs=1)


def test_allowance_counts_where_the_api_says_nothing() -> None:
    now = 1000.0
    allowance = Allowance(2, 900, clock=lambda: now)
    allowance.take()
    allowance.take()
    with pytest.raises(UpstreamLimited) as limited:
        allowance.take()
    assert limited.value.retry_after == 900
    now += 900
    allowance.take()
    allowance.learn(HttpResponse(200, {"x-rate-limit-remaining": "0", "x-rate-limit-reset": "1950"}, b""))
    with pytest.raises(UpstreamLimited) as limited:
        allowance.take()
    assert limited.value.retry_after == 50


async def test_faults_are_told_apart(upstream: Upstream, closing: Closing[Any]) -> None:
    check = closing(dm_check(upstream.url))
    upstream.answer = lambda path, query: (500, {}, {})
    with pytest.raises(CheckFailed):
        await check(item("a"), PROFILE)

    upstream.answer = lambda path, query: (503, {"Retry-After": "4"}, {})
    with pytest.raises(UpstreamLimited):
        await check(item("a"), PROFILE)

    upstream.answer = lambda path, query: (401, {}, {})
    with pytest.raises(ConfigError):
        await check(item("a"), PROFILE)

    upstream.answer = lambda path, query: (404, {}, b"<html>no such page</html>")
    with pytest.raises(ConfigError):
        await check(item("a"), PROFILE)

    upstream.answer = lambda path, query: (200, {}, {})
    with pytest.raises(CheckFailed):
        await check(item("a"), PROFILE)
    with pytest.raises(ConfigError):
        await check(item("a"), {})
    with pytest.raises(UpstreamLimited):
        await closing(dm_check("http://127.0.0.1:9"))(item("a"), PROFILE)

    with pytest.raises(ConfigError):
        dm_check("ftp://x")


async def test_lists_are_whole_and_go_on_after_a_limit(upstream: Upstream, closing: Closing[Any]) -> None:
    strike = True

    def answer(path: str, query: dict[str, str]) -> Answer:
        nonlocal strike
        if query["screen_name"] == "nobody":
            return 404, {}, {"errors": [{"code": 34}]}
        if query["cursor"] == "-1":
            return 200, {}, {"users": [{"screen_name": "a"}, {"screen_name": "b"}], "next_cursor": 5}
        if strike:
            strike = False
            return 429, {"retry-after": "0"}, {}
        return 200, {}, {"users": [{"screen_name": "c"}], "next_cursor": 0}

    upstream.answer = answer
    now = time.monotonic()
    check = closing(follower_check(upstream.url))
    with pytest.raises(UpstreamLimited) as limited:
        await check(item("x"), {})

    assert limited.value.retry_after <= 1
    while time.monotonic() - now < 5:  # the least that a limit lasts is a second
        try:
            found = await check(item("x"), {})
            break
        except UpstreamLimited as again:
            time.sleep(again.retry_after)  # noqa: ASYNC251 - nothing else runs here

    assert found == {"accounts": [{"key": "a"}, {"key": "b"}, {"key": "c"}], "complete": True}
    assert [query["cursor"] for _, query, _ in upstream.seen] == ["-1", "5", "5"]
    assert await closing(following_check(upstream.url))(item("nobody"), {}) == {"missing": True}
    assert upstream.seen[-1][0] == "/base/1.1/friends/list.json"
