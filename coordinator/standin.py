"""A stand-in, on this machine, for the outside API that the built-in checkers ask.

Small HTTP/1.1 on loopback: GET only, keep-alive, JSON.  Its answers depend only on the sample and on hashes
of the screen names, so that two runs get the same answers.  Its latency and its rate limit are arguments;
`standin_troubles.py` has the switches for all that can be wrong with it.

    /1.1/friendships/show.json    ?source_screen_name=…&target_screen_name=…
    /1.1/followers/list.json      ?screen_name=…&cursor=-1&count=200
    /1.1/friends/list.json        the same
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from coordinator import sample
from coordinator.model import JsonObject
from coordinator.standin_troubles import ApiFault, Troubles

_MAX_HEAD_BYTES = 16 * 1024
_IDLE_TIMEOUT = 60.0
"""Seconds that a connection may be silent."""

_DAY = 86_400.0
_PHRASES = {status.value: status.phrase for status in HTTPStatus}

_FRIENDSHIP_PATH = "/1.1/friendships/show.json"
_LIST_PATHS = {"/1.1/followers/list.json": "followers", "/1.1/friends/list.json": "friends"}


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request of a caller; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class ApiReply:
    """The answer to one request; a body of bytes is no JSON."""

    status: int
    body: Mapping[str, Any] | bytes
    headers: Mapping[str, str]


class _MalformedRequest(Exception):
    """Raised when the bytes are not an HTTP request that this server takes."""


class SocialGraph:
    """The accounts of the API: which exist, which take messages, and which follow which."""

    def __init__(self) -> None:
        self._ids = {account.screen_name.lower(): account.account_id for account in sample.accounts()}
        self.followers: dict[str, list[str]] = defaultdict(list)
        self.friends: dict[str, list[str]] = defaultdict(list)
        self._pairs: set[tuple[str, str]] = set()
        for follow in sample.follows():
            self.followers[follow.followed.lower()].append(follow.follower)
            self.friends[follow.follower.lower()].append(follow.followed)
            self._pairs.add((follow.follower.lower(), follow.followed.lower()))

    @staticmethod
    def exists(screen_name: str) -> bool:
        """Tell whether the account exists; all but about 2 % of all names do, in the sample or not."""
        return _stable_fraction("exists", screen_name) >= 0.02

    @staticmethod
    def can_dm(screen_name: str) -> bool:
        """Tell whether everyone may send messages to this account; about 40 % of all allow it."""
        return _stable_fraction("dm", screen_name) < 0.4

    def follows(self, follower: str, followed: str) -> bool:
        """Tell whether one account follows the other."""
        return (follower.lower(), followed.lower()) in self._pairs

    def user(self, screen_name: str) -> JsonObject:
        """Return the account as lists have it."""
        account_id = self._ids.get(screen_name.lower())
        return {"screen_name": screen_name} | ({} if account_id is None else {"id": account_id})


class RateLimit:
    """A token bucket for each caller and path: `requests` in `window` seconds, in a burst or spread.

    `prefix` begins the names of its headers.
    """

    def __init__(self, requests: int, window: float, prefix: str = "x-rate-limit") -> None:
        self.requests = requests
        self._prefix = prefix
        self._per_second = requests / window
        self._left: dict[tuple[str, str], tuple[float, float]] = {}

    def take(self, caller: str, path: str, now: float, wall: float) -> dict[str, str]:
        """Count one request, and return the headers that say how many are left; `wall` is the API's own time.

        Raises:
            ApiFault: none are left; the answer says when the next is possible.
        """
        left, at = self._left.get((caller, path), (float(self.requests), now))
        left = min(float(self.requests), left + (now - at) * self._per_second)
        wait = max(0.0, 1.0 - left) / self._per_second
        rest = left - 1.0 if wait == 0 else left
        self._left[caller, path] = (rest, now)

        remaining = max(0, int(left) - 1)
        # A caller with none left waits until one is possible again, not until all are.
        missing = max(0.0, 1.0 - rest) if remaining == 0 else self.requests - rest
        headers = {
            f"{self._prefix}-limit": str(self.requests),
            f"{self._prefix}-remaining": str(remaining),
            f"{self._prefix}-reset": str(math.ceil(wall + missing / self._per_second)),
        }

        if wait > 0:
            headers["retry-after"] = str(math.ceil(wait))
            raise ApiFault.of(429, 88, "Rate limit exceeded", headers)

        return headers


class StandIn:
    """The server, inside `async with`; `url` is its base URL.

    Args:
        latency: seconds that an answer takes, ± `jitter`.
        requests: how many of one path a caller may make in `window` seconds; 0 means any number.  A caller
            is told by its Authorization, else its source, else its address.

    `answers` counts the answers by their status, `latest` has the last requests and `connections` is how many there
    were; `troubles` has the switches, and `latency` may be changed, too.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        latency: float = 0.02,
        jitter: float = 0.01,
        requests: int = 180,
        window: float = 900.0,
        troubles: Troubles | None = None,
    ) -> None:
        self.answers: Counter[int] = Counter()
        self.latest: deque[ApiRequest] = deque(maxlen=100)
        self.connections = 0
        self._has_answered = asyncio.Event()
        self.troubles = troubles if troubles is not None else Troubles()
        self._host, self._port = host, port
        self.latency, self._jitter = latency, jitter

        self._limit = RateLimit(requests, window) if requests else None
        self._graph = SocialGraph()
        self._daily: RateLimit | None = None
        self._random = random.Random(0)  # noqa: S311 - delays are no secret
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def served(self) -> int:
        """The number of requests that were answered."""
        return self.answers.total()

    async def answered(self, status: int, count: int) -> None:
        """Wait until so many answers have had this status."""
        while self.answers[status] < count:
            self._has_answered.clear()
            await self._has_answered.wait()

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=_MAX_HEAD_BYTES)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        self.connections += 1
        try:
            await self._answer_requests(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # the caller has gone, or is silent
        except asyncio.CancelledError:
            task.uncancel()  # only __aexit__ cancels, and a cancelled stream callback is logged as a fault
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, one after the other."""
        address = str(writer.get_extra_info("peername")[0])
        keep_alive = True
        while keep_alive:
            try:
                async with asyncio.timeout(_IDLE_TIMEOUT):
                    request = _parse(await reader.readuntil(b"\r\n\r\n"))
            except (_MalformedRequest, asyncio.LimitOverrunError) as failure:
                keep_alive = False
                reply = _reply_of(ApiFault.of(400, 0, str(failure)))
            else:
                keep_alive = request.keep_alive
                reply = await self._reply(request, address)

            writer.write(_encode_reply(reply, keep_alive))
            await writer.drain()

    async def _reply(self, request: ApiRequest, address: str) -> ApiReply:
        await asyncio.sleep(max(0.0, self.latency + self._random.uniform(-self._jitter, self._jitter)))
        if self.troubles.silent:
            await asyncio.get_running_loop().create_future()  # until the stand-in ends

        headers: dict[str, str] = {}
        if self.troubles.dated:
            headers["date"] = formatdate(self._wall(), usegmt=True)
        try:
            _check_endpoint(request)
            self.troubles.check_all()
            self._count(request, address, headers)
            if request.path in _LIST_PATHS:
                body = self._list(_LIST_PATHS[request.path], request)
            else:
                body = self._friendship(request)
            reply = ApiReply(HTTPStatus.OK, body, headers)
        except ApiFault as fault:
            reply = _reply_of(fault, headers)

        self.latest.append(request)
        self.answers[reply.status] += 1
        self._has_answered.set()
        return reply

    def _wall(self) -> float:
        """Return the API's own time, which its switch may have set wrong."""
        return time.time() + self.troubles.clock

    def _count(self, request: ApiRequest, address: str, headers: dict[str, str]) -> None:
        """Count one request against the caller's limits, and add the headers that tell what is left."""
        now = asyncio.get_running_loop().time()
        named = request.query.get("source_screen_name", address)
        caller = request.headers.get("authorization", named)

        if self.troubles.daily:
            if self._daily is None or self._daily.requests != self.troubles.daily:
                self._daily = RateLimit(self.troubles.daily, _DAY, "x-app-limit-24hour")
            headers |= self._daily.take(caller, "", now, self._wall())
        if self._limit is not None:
            headers |= self._limit.take(caller, request.path, now, self._wall())

    def _friendship(self, request: ApiRequest) -> JsonObject:
        query = request.query
        source, target = _required(query, "source_screen_name"), _required(query, "target_screen_name")
        self._check_account(target, request.path)
        there, back = self._graph.follows(source, target), self._graph.follows(target, source)
        can_dm = self._graph.can_dm(target)
        return {
            "relationship": {
                "source": {"screen_name": source, "following": there, "followed_by": back, "can_dm": can_dm},
                "target": {**self._graph.user(target), "following": back, "followed_by": there},
            }
        }

    def _list(self, kind: str, request: ApiRequest) -> JsonObject:
        query = request.query
        name = _required(query, "screen_name")
        self._check_account(name, request.path)
        lists = self._graph.followers if kind == "followers" else self._graph.friends
        found = lists.get(name.lower(), [])
        size = min(self.troubles.page, max(1, _number(query, "count", self.troubles.page)))
        start = max(0, _number(query, "cursor", -1))  # -1 is the first page, as 0 is the end of all
        end = start + size

        following = end if end < len(found) else 0
        previous = -max(1, start - size) if start else 0
        return {
            "users": [self._graph.user(name) for name in found[start:end]],
            "next_cursor": following,
            "next_cursor_str": str(following),
            "previous_cursor": previous,
            "previous_cursor_str": str(previous),
        }

    def _check_account(self, screen_name: str, path: str) -> None:
        self.troubles.check_account(screen_name, path)
        if not self._graph.exists(screen_name):
            raise ApiFault.of(404, 50, "User not found.")


def _check_endpoint(request: ApiRequest) -> None:
    if request.method != "GET":
        raise ApiFault.of(405, 0, "GET only", {"allow": "GET"})
    if request.path != _FRIENDSHIP_PATH and request.path not in _LIST_PATHS:
        raise ApiFault.of(404, 34, "Sorry, that page does not exist.")


def _stable_fraction(purpose: str, screen_name: str) -> float:
    """Return a number from 0 to 1 that looks random and is always the same for this purpose and name."""
    digest = hashlib.sha256(f"{purpose}:{screen_name.lower()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _required(query: Mapping[str, str], name: str) -> str:
    if not query.get(name):
        raise ApiFault.of(400, 38, f"{name} parameter is missing.")
    return query[name]


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(query.get(name, default))
    except ValueError:
        raise ApiFault.of(400, 44, f"{name} parameter is invalid.") from None


def _parse(head: bytes) -> ApiRequest:
    first, *lines = head.decode("latin-1").split("\r\n")
    try:
        method, target, version = first.split(" ")
        headers = {}
        for line in filter(None, lines):
            name, value = line.split(":", 1)
            headers[name.strip().lower()] = value.strip()
        parts = urlsplit(target)
    except ValueError:
        raise _MalformedRequest("Malformed request") from None

    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise _MalformedRequest("HTTP/1.1 only")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise _MalformedRequest("A request has no body here")

    keep_alive = headers.get("connection", "").lower() != "close" and version == "HTTP/1.1"
    return ApiRequest(method, parts.path, dict(parse_qsl(parts.query)), headers, keep_alive)


def _reply_of(fault: ApiFault, headers: Mapping[str, str] | None = None) -> ApiReply:
    return ApiReply(fault.status, fault.body, {**(headers or {}), **fault.headers})


def _encode_reply(reply: ApiReply, keep_alive: bool) -> bytes:
    is_page = isinstance(reply.body, bytes)
    body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body, separators=(",", ":")).encode()
    headers = {
        "content-type": "text/html; charset=utf-8" if is_page else "application/json; charset=utf-8",
        "content-length": str(len(body)),
        "connection": "keep-alive" if keep_alive else "close",
        **reply.headers,
    }
    phrase = _PHRASES.get(reply.status, "Enhance Your Calm")  # 420 is the API's own
    lines = [f"HTTP/1.1 {int(reply.status)} {phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
