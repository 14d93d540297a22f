"""The port: plain HTTP, who may open which channel, and the sessions of all channels.  protocol.md, "Channels" """

from __future__ import annotations

import asyncio
import http
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from coordinator.config import is_loopback
from coordinator.errors import ConfigError
from coordinator.serve.addresses import HostCheck, client_block, forwarded_for
from coordinator.serve.admin_channel import AdminDependencies, AdminSession
from coordinator.serve.channel import Edge
from coordinator.serve.client_channel import ClientDependencies, ClientSession
from coordinator.serve.connection import TimestampedConnection
from coordinator.serve.http_pages import ADMIN, CHANNELS, CLIENT, PROBES, STATS, HttpPages, plain
from coordinator.serve.limits import Handshakes
from coordinator.serve.open_sessions import OpenSessions
from coordinator.serve.pinger import Pinger
from coordinator.serve.stats_channel import StatsDependencies, StatsSession
from coordinator.wire.frames import BYTES_BEFORE_HELLO, SUBPROTOCOL, Close

log = structlog.get_logger()

IDLE_SLACK = 4.0
"""Seconds within which sessions that hold nothing are closed when the node drains, spread out."""

SLICE = 0.05
"""Seconds between two groups of them."""

S = TypeVar("S", AdminSession, ClientSession, StatsSession)


@dataclass(frozen=True, slots=True)
class Channels:
    """What the sessions of each channel work with."""

    client: ClientDependencies
    stats: StatsDependencies
    admin: AdminDependencies


class Listener:
    """Accepts connections and runs their sessions."""

    def __init__(self, edge: Edge, channels: Channels, pages: HttpPages, sessions: OpenSessions) -> None:
        settings = edge.core.settings
        self._edge = edge
        self._channels = channels
        self._pages = pages
        self._sessions = sessions
        self._state = edge.core.state
        self._origins = frozenset(origin.lower() for origin in settings.allowed_origins)
        self._hosts = HostCheck(settings.allowed_hosts, loopback_only=is_loopback(settings.host))
        self._handshakes = Handshakes(settings.trusted_proxies)
        self._pinger = Pinger(settings.ping_interval, settings.ping_timeout)
        self._servers: list[Server] = []

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
            # A connection is made like any of the library, and takes a place among the handshakes besides.
            create_connection=partial(TimestampedConnection, handshakes=self._handshakes),  # type: ignore[arg-type]  # it is only called
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
        try:
            return await self._answer(connection, request)
        except MultipleValuesError as repeated:
            return plain(http.HTTPStatus.BAD_REQUEST, f"The header {repeated.args[0]} stands there twice.\n")

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        headers = request.headers
        if path not in PROBES and not self._hosts.allows(headers.get("Host")):
            return plain(http.HTTPStatus.FORBIDDEN, "This host is not among the allowed_hosts.\n")
        if "websocket" not in headers.get("Upgrade", "").lower():
            return await self._pages.of_main_port(path)
        if path not in CHANNELS:
            return plain(http.HTTPStatus.NOT_FOUND, "There is no such channel.\n")
        origin = headers.get("Origin")
        if origin is not None and not self._may_come_from(origin, headers, own=path != CLIENT):
            return plain(http.HTTPStatus.FORBIDDEN, "This origin is not on the allowlist.\n")
        if self._state.draining:
            return plain(http.HTTPStatus.SERVICE_UNAVAILABLE, "This node drains.\n", retry_after=5)
        # Each for itself: viewers take no places from clients.
        sessions, limits = self._sessions, self._edge.limits
        here = {CLIENT: len(sessions.clients), STATS: len(sessions.viewers)}.get(path, 0)
        if here >= limits.max_sessions:
            return plain(http.HTTPStatus.SERVICE_UNAVAILABLE, "This node is full.\n", retry_after=30)
        if self._edge.addresses.full(self._address(connection, request)):
            return plain(http.HTTPStatus.TOO_MANY_REQUESTS, "Too many connections from this address.\n", retry_after=30)
        return None

    async def _on_ops_request(self, connection: ServerConnection, request: Request) -> Response | None:
        return await self._pages.of_operations_port(request.path.partition("?")[0])

    def _may_come_from(self, origin: str, headers: Headers, *, own: bool) -> bool:
        if origin.lower() in self._origins:
            return True
        host = headers.get("Host", "").lower()
        return own and bool(host) and origin.lower() in (f"http://{host}", f"https://{host}")

    def _address(self, connection: ServerConnection, request: Request) -> str:
        assert isinstance(connection, TimestampedConnection)
        return client_block(connection.peer, forwarded_for(request.headers), self._edge.core.settings.trusted_proxies)

    # Sessions

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, TimestampedConnection)
        assert connection.request is not None
        connection.end_handshake()
        address = self._address(connection, connection.request)
        path = connection.request.path.partition("?")[0]
        here, channels = self._sessions, self._channels
        if path == ADMIN:
            await self._run(AdminSession(connection, address, self._edge, channels.admin), here.admins)
        elif path == STATS:
            await self._run(StatsSession(connection, address, self._edge, channels.stats), here.viewers)
        else:
            session = ClientSession(connection, address, self._edge, channels.client)
            if self._state.draining:  # it began while this connection was shaking hands
                session.end(Close.RESTART, "draining")
            await self._run(session, here.clients)

    async def _run(self, session: S, here: set[S]) -> None:
        self._edge.addresses.enter(session.address)
        here.add(session)
        self._pinger.add(session)
        try:
            await session.run()
        finally:
            self._pinger.remove(session)
            here.discard(session)
            self._edge.addresses.leave(session.address)

    # The end

    async def drain(self, grace: float, reason: str) -> None:
        """Let the clients finish: no new buckets; idle ones go within 5 s, the others after their submits or `grace`.

        Buckets that are held then are kept for their clients.
        """
        loop = asyncio.get_running_loop()
        sessions = list(self._sessions.clients)
        for session in sessions:
            session.drain(reason)
        begun = loop.time()
        # Spread over some seconds, so that not all of them knock at the other nodes at once.
        slice_ = max(1, len(sessions) * SLICE // IDLE_SLACK)
        while self._sessions.clients and loop.time() - begun < grace:
            idle = [session for session in self._sessions.clients if not session.welcomed or not session.busy]
            for session in idle[: int(slice_)]:
                session.end(Close.RESTART, reason)
            await asyncio.sleep(SLICE)
        for viewer in list(self._sessions.viewers):
            viewer.end(Close.RESTART, reason)
        last = loop.time() + 5.0
        while self._sessions.clients and loop.time() < last:
            for session in list(self._sessions.clients)[: int(slice_) * 10]:
                session.end(Close.RESTART, reason)
            await asyncio.sleep(SLICE)

    def cut_off_clients(self, reason: str) -> None:
        """End all sessions of clients at once."""
        for session in list(self._sessions.clients):
            session.end(Close.RESTART, reason)

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
