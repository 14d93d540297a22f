"""A stand-in, on this machine, for the outside API that the built-in checkers ask.

Small HTTP/1.1 on loopback: GET only, keep-alive, JSON.  Its answers depend only on the sample and on hashes
of the screen names, so that two runs get the same answers.  Its latency and its rate limit are arguments.

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
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from coordinator import sample
from coordinator.model import JsonObject

MAX_USERS_PER_PAGE = 200
"""Users of one page, at most."""

_MAX_HEAD_BYTES = 16 * 1024
_IDLE_TIMEOUT = 60.0
"""Seconds that a connection may be silent."""

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
    """The answer to one request."""

    status: HTTPStatus
    body: Mapping[str, Any]
    headers: Mapping[str, str]


class _ApiError(Exception):
    """Raised to answer with another status than 200."""

    def __init__(self, status: HTTPStatus, code: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reply = ApiReply(status, {"errors": [{"code": code, "message": message}]}, headers or {})


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
    """A token bucket for each caller and path: `requests` in `window` seconds, in a burst or spread."""

    def __init__(self, requests: int, window: float) -> None:
        self.requests = requests
        self._per_second = requests / window
        self._left: dict[tuple[str, str], tuple[float, float]] = {}

    def take(self, caller: str, path: str, now: float) -> dict[str, str]:
        """Count one request, and return the headers that say how many are left.

        Raises:
            _ApiError: none are left; the answer says when the next is possible.
        """
        left, at = self._left.get((caller, path), (float(self.requests), now))
        left = min(float(self.requests), left + (now - at) * self._per_second)
        wait = max(0.0, 1.0 - left) / self._per_second
        self._left[caller, path] = (left - 1.0 if wait == 0 else left, now)

        remaining = max(0, int(left) - 1)
        # A caller with none left waits until one is possible again, not until all are.
        missing = max(0.0, 2.0 - left) if remaining == 0 else self.requests - left
        headers = {
            "x-rate-limit-limit": str(self.requests),
            "x-rate-limit-remaining": str(remaining),
            "x-rate-limit-reset": str(math.ceil(time.time() + missing / self._per_second)),
        }

        if wait > 0:
            headers["retry-after"] = str(math.ceil(wait))
            raise _ApiError(HTTPStatus.TOO_MANY_REQUESTS, 88, "Rate limit exceeded", headers)

        return headers


class StandIn:
    """The server, inside `async with`; `url` is its base URL.

    Args:
        latency: seconds that an answer takes, ± `jitter`.
        requests: how many of one path a caller may make in `window` seconds; 0 means any number.  A caller
            is told by its Authorization, else its source, else its address.
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
        seed: int = 0,
    ) -> None:
        self.served = 0
        self._host, self._port = host, port
        self._latency, self._jitter = latency, jitter

        self._limit = RateLimit(requests, window) if requests else None
        self._graph = SocialGraph()
        self._random = random.Random(seed)  # noqa: S311 - delays are no secret
        self._connections: set[asyncio.Task[None]] = set()

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
                reply = _ApiError(HTTPStatus.BAD_REQUEST, 0, str(failure)).reply
            else:
                keep_alive = request.keep_alive
                reply = await self._reply(request, address)

            writer.write(_encode_reply(reply, keep_alive))
            await writer.drain()

    async def _reply(self, request: ApiRequest, address: str) -> ApiReply:
        await asyncio.sleep(max(0.0, self._latency + self._random.uniform(-self._jitter, self._jitter)))
        self.served += 1

        headers: dict[str, str] = {}
        try:
            _check_endpoint(request)
            if self._limit is not None:
                named = request.query.get("source_screen_name", address)
                caller = request.headers.get("authorization", named)
                headers = self._limit.take(caller, request.path, asyncio.get_running_loop().time())

            if request.path in _LIST_PATHS:
                body = self._list(_LIST_PATHS[request.path], request.query)
            else:
                body = self._friendship(request.query)
        except _ApiError as fault:
            return ApiReply(fault.reply.status, fault.reply.body, headers | dict(fault.reply.headers))

        return ApiReply(HTTPStatus.OK, body, headers)

    def _friendship(self, query: Mapping[str, str]) -> JsonObject:
        source, target = _required(query, "source_screen_name"), _required(query, "target_screen_name")
        self._check_exists(target)
        there, back = self._graph.follows(source, target), self._graph.follows(target, source)
        can_dm = self._graph.can_dm(target)
        return {
            "relationship": {
                "source": {"screen_name": source, "following": there, "followed_by": back, "can_dm": can_dm},
                "target": {**self._graph.user(target), "following": back, "followed_by": there},
            }
        }

    def _list(self, kind: str, query: Mapping[str, str]) -> JsonObject:
        name = _required(query, "screen_name")
        self._check_exists(name)
        lists = self._graph.followers if kind == "followers" else self._graph.friends
        found = lists.get(name.lower(), [])
        size = min(MAX_USERS_PER_PAGE, max(1, _number(query, "count", MAX_USERS_PER_PAGE)))
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

    def _check_exists(self, screen_name: str) -> None:
        if not self._graph.exists(screen_name):
            raise _ApiError(HTTPStatus.NOT_FOUND, 50, "User not found.")


def _check_endpoint(request: ApiRequest) -> None:
    if request.method != "GET":
        raise _ApiError(HTTPStatus.METHOD_NOT_ALLOWED, 0, "GET only", {"allow": "GET"})
    if request.path != _FRIENDSHIP_PATH and request.path not in _LIST_PATHS:
        raise _ApiError(HTTPStatus.NOT_FOUND, 34, "Sorry, that page does not exist.")


def _stable_fraction(purpose: str, screen_name: str) -> float:
    """Return a number from 0 to 1 that looks random and is always the same for this purpose and name."""
    digest = hashlib.sha256(f"{purpose}:{screen_name.lower()}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _required(query: Mapping[str, str], name: str) -> str:
    if not query.get(name):
        raise _ApiError(HTTPStatus.BAD_REQUEST, 38, f"{name} parameter is missing.")
    return query[name]


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(query.get(name, default))
    except ValueError:
        raise _ApiError(HTTPStatus.BAD_REQUEST, 44, f"{name} parameter is invalid.") from None


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


def _encode_reply(reply: ApiReply, keep_alive: bool) -> bytes:
    body = json.dumps(reply.body, separators=(",", ":")).encode()
    headers = {
        "content-type": "application/json; charset=utf-8",
        "content-length": str(len(body)),
        "connection": "keep-alive" if keep_alive else "close",
        **reply.headers,
    }
    lines = [f"HTTP/1.1 {reply.status.value} {reply.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
