"""The listening port: plain HTTP, admission to channels, and the sessions of all channels.  protocol.md, "Channels" """

from __future__ import annotations

import asyncio
import http
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import parse_qs

import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers, MultipleValuesError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from coordinator.config import Settings
from coordinator.flow.core import RETRY_AFTER_DRAIN
from coordinator.serve.access import AccessRules
from coordinator.serve.addresses import client_block, forwarded_for, is_forwarded
from coordinator.serve.admin_channel import AdminDependencies, AdminSession
from coordinator.serve.channel import Edge
from coordinator.serve.client_channel import ClientDependencies, ClientSession
from coordinator.serve.connection import CLOSE_TIMEOUT, HttpConnection, TimestampedConnection
from coordinator.serve.http_pages import ADMIN, CHANNELS, CLIENT, PROBES, STATS, HttpPages
from coordinator.serve.limits import Handshakes, TokenBucket
from coordinator.serve.open_sessions import OpenSessions
from coordinator.serve.pinger import Pinger
from coordinator.serve.plain_http import plain
from coordinator.serve.progress_pages import Onlooker
from coordinator.serve.stats_channel import StatsDependencies, StatsSession
from coordinator.wire.frames import BYTES_BEFORE_REGISTRATION, SUBPROTOCOL, Close

log = structlog.get_logger()

CLOSE_PERIOD = 4.0
"""Seconds over which a draining node spreads the closing of sessions that hold nothing."""

REFUSALS_TOLD_A_MINUTE = 60
"""Requests refused for their host or origin that are logged in a minute."""

CLOSE_INTERVAL = 0.05
"""Seconds between two groups of sessions that are closed."""

S = TypeVar("S", AdminSession, ClientSession, StatsSession)


@dataclass(frozen=True, slots=True)
class Channels:
    """The parts that the sessions of each channel use."""

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
        self._rules = AccessRules(settings)
        self._told = TokenBucket(REFUSALS_TOLD_A_MINUTE)
        self._handshakes = Handshakes(settings.trusted_proxies)
        self._pinger = Pinger(settings.ping_interval, settings.ping_timeout)
        self._servers: list[Server] = []

    async def open(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, shared_port: bool, ops: tuple[str, int] | None
    ) -> tuple[int, int | None]:
        """Listen on the main port and on the operations port; returns both, since 0 stands for a free one.

        `shared_port` lets several processes listen on the same main port; `ops` is host and port.

        Raises:
            OSError: an address is in use, or is not one of this machine.
        """
        main = await serve(
            self._serve,
            host,
            port,
            # A connection is made like any of the library, and takes a place among the handshakes besides.
            create_connection=partial(TimestampedConnection, handshakes=self._handshakes),  # type: ignore[arg-type]  # it is only called
            process_request=self._on_request,
            select_subprotocol=_choose,
            compression=None,  # a compressor takes ten times the memory of a session
            ping_interval=None,  # Pinger does this without a close handshake
            close_timeout=CLOSE_TIMEOUT,
            open_timeout=10,
            max_size=BYTES_BEFORE_REGISTRATION,
            max_queue=16,
            server_header=None,
            ssl=tls,
            reuse_port=shared_port or None,
            backlog=1024,
        )
        self._servers.append(main)

        ops_port = None
        if ops is not None:
            beside = await serve(
                self._serve,
                ops[0],
                ops[1],
                create_connection=HttpConnection,
                process_request=self._on_ops_request,
                server_header=None,
            )
            self._servers.append(beside)
            ops_port = _port(beside)
        return _port(main), ops_port

    def use(self, settings: Settings) -> None:
        """Check requests by the hosts and origins of these settings from now on."""
        self._rules = AccessRules(settings)

    async def run(self) -> None:
        """Ping all connections until cancelled."""
        await self._pinger.run()

    # Plain HTTP

    async def _on_request(self, connection: ServerConnection, request: Request) -> Response | None:
        try:
            return await self._answer(connection, request)
        except MultipleValuesError as repeated:
            return plain(http.HTTPStatus.BAD_REQUEST, f"The header {repeated.args[0]} stands there twice.\n")

    async def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        assert isinstance(connection, TimestampedConnection)
        path, _, query = request.path.partition("?")
        headers = request.headers
        if path not in PROBES and (told := self._rules.refuse_host(connection.peer, headers)) is not None:
            self._tell(told, connection)
            return plain(http.HTTPStatus.FORBIDDEN, f"{told}\n")

        upgrade = request.method == "GET" and "websocket" in headers.get("Upgrade", "").lower()
        if upgrade and path not in CHANNELS:
            return plain(http.HTTPStatus.NOT_FOUND, "There is no such channel.\n")
        if upgrade:
            return self._refusal(connection, request, path, headers.get("Origin"))
        onlooker = self._onlooker(connection, headers)
        if request.method != "GET" or path not in CHANNELS:
            return await self._pages.of_main_port(request.method, path, onlooker)

        # A browser hides from its page why a channel was refused, so the page asks in plain HTTP.
        origin = parse_qs(query).get("origin", [None])[-1]
        return self._refusal(connection, request, path, origin) or await self._pages.of_main_port("GET", path, onlooker)

    def _refusal(
        self, connection: TimestampedConnection, request: Request, path: str, origin: str | None
    ) -> Response | None:
        """Return the response to a request for a channel that may not open now; None if it may."""
        headers = request.headers
        if origin is not None:
            told = self._rules.refuse_origin(origin, connection.peer, headers, own=path != CLIENT)
            if told is not None:
                self._tell(told, connection)
                return plain(http.HTTPStatus.FORBIDDEN, f"{told}\n")
        if self._state.draining:
            return plain(http.HTTPStatus.SERVICE_UNAVAILABLE, "This node drains.\n", retry_after=int(RETRY_AFTER_DRAIN))

        # Clients and viewers are counted separately, so that viewers take no places from clients.
        sessions, limits = self._sessions, self._edge.limits
        count = {CLIENT: len(sessions.clients), STATS: len(sessions.viewers)}.get(path, 0)
        if count >= limits.max_sessions:
            return plain(http.HTTPStatus.SERVICE_UNAVAILABLE, "This node is full.\n", retry_after=30)
        if self._edge.addresses.full(self._address(connection, request)):
            return plain(http.HTTPStatus.TOO_MANY_REQUESTS, "Too many connections from this address.\n", retry_after=30)
        return None

    def _onlooker(self, connection: TimestampedConnection, headers: Headers) -> Onlooker:
        """Tell what a request without a token may see.

        Where only this machine is let in, and nobody said that viewers need no token, a page of a stranger in a browser
        here must not read what its reader may.
        """
        settings = self._state.settings
        welcome = settings.access_to("viewers", behind_proxy=is_forwarded(headers)) == "open"
        if settings.access_to("viewers", behind_proxy=True) == "open":
            return Onlooker(welcome, "*")

        origin = headers.get("Origin")
        refused = origin is None or self._rules.refuse_origin(origin, connection.peer, headers, own=True)
        return Onlooker(welcome, None if refused else origin)

    def _tell(self, told: str, connection: TimestampedConnection) -> None:
        """Write a refusal into the log, as long as there are not too many: anybody can cause them."""
        if not self._told.take():
            log.warning("a request was refused", reason=told, address=connection.peer)

    async def _on_ops_request(self, connection: ServerConnection, request: Request) -> Response | None:
        return await self._pages.of_operations_port(request.method, request.path.partition("?")[0])

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
        sessions, channels = self._sessions, self._channels

        if path == ADMIN:
            await self._run(AdminSession(connection, address, self._edge, channels.admin), sessions.admins)
        elif path == STATS:
            await self._run(StatsSession(connection, address, self._edge, channels.stats), sessions.viewers)
        else:
            session = ClientSession(connection, address, self._edge, channels.client)
            if self._state.draining:  # it began while this connection was shaking hands
                session.end(Close.RESTART, "draining")
            await self._run(session, sessions.clients)

    async def _run(self, session: S, sessions: set[S]) -> None:
        session.connection.forget_headers()
        self._edge.addresses.enter(session.address)
        sessions.add(session)
        self._pinger.add(session)
        try:
            await session.run()
        finally:
            self._pinger.remove(session)
            sessions.discard(session)
            self._edge.addresses.leave(session.address)

    # The end

    async def drain(self, grace: float, reason: str) -> None:
        """Hand out no more, and close the sessions: idle ones within 5 s, the others after their last submit.

        After `grace` seconds all are closed; the buckets that they still hold are kept for their clients.
        """
        loop = asyncio.get_running_loop()
        sessions = list(self._sessions.clients)
        for session in sessions:
            session.drain(reason)

        begun = loop.time()
        # Spread over some seconds, so that the clients do not reconnect to the other nodes all at once.
        group_size = int(max(1, len(sessions) * CLOSE_INTERVAL // CLOSE_PERIOD))
        while self._sessions.clients and loop.time() - begun < grace:
            idle = [session for session in self._sessions.clients if not session.welcomed or not session.busy]
            for session in idle[:group_size]:
                session.end(Close.RESTART, reason)
            await asyncio.sleep(CLOSE_INTERVAL)

        for viewer in list(self._sessions.viewers):
            viewer.end(Close.RESTART, reason)

        last = loop.time() + 5.0
        while self._sessions.clients and loop.time() < last:
            for session in list(self._sessions.clients)[: group_size * 10]:
                session.end(Close.RESTART, reason)
            await asyncio.sleep(CLOSE_INTERVAL)

    def cut_off_clients(self, reason: str) -> None:
        """End all sessions of clients at once."""
        for session in list(self._sessions.clients):
            session.end(Close.RESTART, reason)

    async def close(self) -> None:
        """Stop listening, and close the connections that are still open."""
        for server in self._servers:
            server.close(code=Close.RESTART)
        for server in self._servers:
            await server.wait_closed()


def _choose(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Choose the subprotocol of this server if the client offers it; a client without it is served too."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


def _port(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])
