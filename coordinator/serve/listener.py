"""The port: plain HTTP, who may open which channel, and the sessions of all channels.  protocol.md, "Channels" """

from __future__ import annotations

import asyncio
import http
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from coordinator.errors import ConfigError
from coordinator.serve.admin_channel import AdminDependencies, AdminSession
from coordinator.serve.client_channel import ClientDependencies, ClientSession
from coordinator.serve.connection import Pinger, TimestampedConnection
from coordinator.serve.limits import forwarded_for
from coordinator.serve.pages import Pages
from coordinator.serve.stats_channel import StatsDependencies, StatsSession
from coordinator.wire.frames import BYTES_BEFORE_HELLO, SUBPROTOCOL, Close

log = structlog.get_logger()

CLIENT, STATS, ADMIN = "/v1/client", "/v1/stats", "/v1/admin"
CHANNELS = (CLIENT, STATS, ADMIN)

IDLE_SLACK = 4.0
"""Seconds within which sessions that hold nothing are closed when the node drains, spread out."""

SLICE = 0.05
"""Seconds between two groups of them."""

S = TypeVar("S", AdminSession, StatsSession)

Check = Callable[[], Awaitable[bool]]


class Listener:
    """Accepts connections and runs their sessions."""

    def __init__(
        self,
        steps: ClientDependencies,
        admin: AdminDependencies,
        stats: StatsDependencies,
        *,
        allowed_origins: Sequence[str],
        ready: Check,
        pages: Pages,
        metrics: Callable[[], Awaitable[tuple[str, bytes]]],
    ) -> None:
        self._steps = steps
        self._admin = admin
        self._stats = stats
        self._origins = frozenset(origin.lower() for origin in allowed_origins)
        self._ready = ready
        self._pages = pages
        self._metrics = metrics
        self._pinger = Pinger(steps.limits.ping_interval, steps.limits.ping_timeout)
        self._servers: list[Server] = []
        self._open = 0
        self.sessions: set[ClientSession] = set()
        self.admins: set[AdminSession] = set()
        self.viewers: set[StatsSession] = set()

    async def open(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, shared_port: bool, ops: tuple[str, int] | None
    ) -> tuple[int, int | None]:
        """Listen; returns the ports, since 0 takes free ones.

        `shared_port` lets several processes listen on the same one.

        Raises:
            OSError: an address is taken, or not this machine's.
        """
        main = await serve(
            self._serve,
            host,
            port,
            create_connection=TimestampedConnection,
            process_request=self._on_request,
            select_subprotocol=_choose,
            compression=None,  # a compressor for each session would cost ten times its memory
            ping_interval=None,  # our own pinger does not wait for a close handshake
            close_timeout=2,
            open_timeout=10,
            max_size=BYTES_BEFORE_HELLO,
            max_queue=16,
            server_header=None,
            ssl=tls,
            reuse_port=shared_port or None,
            backlog=1024,
        )
        self._servers.append(main)
        ops_port = None
        if ops is not None:
            beside = await serve(self._serve, ops[0], ops[1], process_request=self._on_ops_request, server_header=None)
            self._servers.append(beside)
            ops_port = _port(beside)
        return _port(main), ops_port

    async def run(self) -> None:
        """Ping, until cancelled."""
        await self._pinger.run()

    # Plain HTTP

    async def _on_request(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        headers = request.headers
        if "websocket" not in headers.get("Upgrade", "").lower():
            return await self._page(path)
        if path not in CHANNELS:
            return _plain(http.HTTPStatus.NOT_FOUND, "There is no such channel.\n")
        origin = headers.get("Origin")
        if origin is not None and not self._may_come_from(origin, headers, own=path != CLIENT):
            return _plain(http.HTTPStatus.FORBIDDEN, "This origin is not on the allowlist.\n")
        steps = self._steps
        if steps.draining():
            return _plain(http.HTTPStatus.SERVICE_UNAVAILABLE, "This node drains.\n", retry_after=5)
        # Each for itself: viewers take no places from clients.
        here = {CLIENT: self._open, STATS: len(self.viewers)}.get(path, 0)
        if here >= steps.limits.max_sessions:
            return _plain(http.HTTPStatus.SERVICE_UNAVAILABLE, "This node is full.\n", retry_after=30)
        if steps.addresses.full(self._address(connection, request)):
            return _plain(
                http.HTTPStatus.TOO_MANY_REQUESTS, "Too many connections from this address.\n", retry_after=30
            )
        return None

    async def _on_ops_request(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/metrics":
            return _response(http.HTTPStatus.OK, *await self._metrics())
        return await self._page(path, ops=True)

    async def _page(self, path: str, *, ops: bool = False) -> Response:
        if path == "/healthz":
            return _plain(http.HTTPStatus.OK, "ok\n")
        if path == "/readyz":
            if not self._steps.draining() and await self._ready():
                return _plain(http.HTTPStatus.OK, "ready\n")
            return _plain(http.HTTPStatus.SERVICE_UNAVAILABLE, "not ready\n")
        if path in CHANNELS and not ops:
            return _plain(http.HTTPStatus.UPGRADE_REQUIRED, "This is a WebSocket channel.\n")
        found = None if ops else self._pages.get(path)
        if found is None:
            return _plain(http.HTTPStatus.NOT_FOUND, "There is nothing here.\n")
        return _response(http.HTTPStatus.OK, found.content_type, found.body, **found.headers)

    def _may_come_from(self, origin: str, headers: Headers, *, own: bool) -> bool:
        if origin.lower() in self._origins:
            return True
        host = headers.get("Host", "").lower()
        return own and bool(host) and origin.lower() in (f"http://{host}", f"https://{host}")

    def _address(self, connection: ServerConnection, request: Request) -> str:
        peer = connection.remote_address
        return self._steps.addresses.address_of(str(peer[0]) if peer else "local", forwarded_for(request.headers))

    # Sessions

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, TimestampedConnection)
        assert connection.request is not None
        address = self._address(connection, connection.request)
        path = connection.request.path.partition("?")[0]
        if path == ADMIN:
            await self._run(AdminSession(connection, address, self._admin), self.admins)
        elif path == STATS:
            await self._run(StatsSession(connection, address, self._stats), self.viewers)
        else:
            await self._run_client(ClientSession(connection, address, self._steps), address)

    async def _run(self, session: S, here: set[S]) -> None:
        self._steps.addresses.enter(session.address)
        here.add(session)
        self._pinger.add(session)
        try:
            await session.run()
        finally:
            self._pinger.remove(session)
            here.discard(session)
            self._steps.addresses.leave(session.address)

    async def _run_client(self, session: ClientSession, address: str) -> None:
        if self._steps.draining():  # it began while this connection was shaking hands
            session.end(Close.RESTART, "draining")
        self._open += 1
        self._steps.addresses.enter(address)
        self.sessions.add(session)
        self._pinger.add(session)
        try:
            await session.run()
        finally:
            self._pinger.remove(session)
            self.sessions.discard(session)
            self._steps.addresses.leave(address)
            self._open -= 1

    def of_token(self, token: str | None = None) -> list[AdminSession | StatsSession]:
        """The sessions that live by that token, or by any."""
        by_token: list[AdminSession | StatsSession] = [*self.admins, *self.viewers]
        return [one for one in by_token if one.token_id is not None and token in (None, one.token_id)]

    # The end

    async def drain(self, grace: float, reason: str) -> None:
        """Let the clients finish: no new buckets; idle ones go within 5 s, the others after their submits or `grace`.

        Buckets that are held then are kept for their clients.
        """
        loop = asyncio.get_running_loop()
        sessions = list(self.sessions)
        for session in sessions:
            session.drain(reason)
        begun = loop.time()
        # Spread over some seconds, so that not all of them knock at the other nodes at once.
        slice_ = max(1, len(sessions) * SLICE // IDLE_SLACK)
        while self.sessions and loop.time() - begun < grace:
            idle = [session for session in self.sessions if not session.welcomed or not session.busy]
            for session in idle[: int(slice_)]:
                session.end(Close.RESTART, reason)
            await asyncio.sleep(SLICE)
        for viewer in list(self.viewers):
            viewer.end(Close.RESTART, reason)
        last = loop.time() + 5.0
        while self.sessions and loop.time() < last:
            for session in list(self.sessions)[: int(slice_) * 10]:
                session.end(Close.RESTART, reason)
            await asyncio.sleep(SLICE)

    async def close(self) -> None:
        """Stop listening and end what is still open."""
        for server in self._servers:
            server.close(code=Close.RESTART)
        for server in self._servers:
            await server.wait_closed()


def tls_of(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What a port with that certificate needs; None without one.

    Raises:
        ConfigError: the files do not do.
    """
    if cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as failure:
        raise ConfigError(f"tls_cert, tls_key: cannot be read as a certificate and its key: {failure}") from failure
    return context


def _choose(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours if it is offered; a client that offers none is served too."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


def _port(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])


def _plain(status: http.HTTPStatus, text: str, retry_after: int | None = None) -> Response:
    more = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return _response(status, "text/plain; charset=utf-8", text.encode(), **more)


def _response(status: http.HTTPStatus, content_type: str, body: bytes, **more: str) -> Response:
    headers: Any = Headers(
        {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Connection": "close",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            **more,
        }
    )
    return Response(status.value, status.phrase, headers, body)
