"""The one place where the parts are joined: a node, from its settings to its last session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog

from coordinator import __version__
from coordinator.config import Settings
from coordinator.errors import ConfigError, Unavailable
from coordinator.flow.activity import ActivityLog
from coordinator.flow.callouts import Callouts
from coordinator.flow.catalogue import Catalogue
from coordinator.flow.commits import Commits
from coordinator.flow.expiry import Expiry
from coordinator.flow.grant import Grant
from coordinator.flow.intake import Intake
from coordinator.flow.item_operation import ItemOperation
from coordinator.flow.making import Maker
from coordinator.flow.membership import Memberships
from coordinator.flow.operation import Operation
from coordinator.flow.release import Releases
from coordinator.flow.roster import Roster
from coordinator.flow.service_life import ServiceLife
from coordinator.flow.signals import Signals
from coordinator.flow.tally import Tally
from coordinator.flow.undo import Undo
from coordinator.flow.watch import Watch
from coordinator.model import Boot, ServiceId
from coordinator.observe.asking import Asking
from coordinator.observe.board import Board
from coordinator.observe.events import Events
from coordinator.observe.load import Load
from coordinator.observe.metrics import Metrics
from coordinator.observe.recorder import Recorder
from coordinator.observe.tables import Tables
from coordinator.prepare import prepared_database
from coordinator.serve.admin_channel import AdminSteps
from coordinator.serve.client_channel import Steps
from coordinator.serve.errands import Errands
from coordinator.serve.feeds import Feeds
from coordinator.serve.hearing import Hearing
from coordinator.serve.limits import Addresses
from coordinator.serve.listener import Listener, tls_of
from coordinator.serve.pages import Page, dashboard_pages
from coordinator.serve.stats_channel import StatsSteps
from coordinator.services import Plugin, load_plugins
from coordinator.store import activity, nodes
from coordinator.store.pool import Database
from coordinator.store.rehearsal import rehearse
from coordinator.wire.client import Limits
from coordinator.wire.frames import Close, ServerCard
from coordinator.wire.schema import asyncapi

log = structlog.get_logger()

DRAIN_RETRY = 5.0
"""Seconds after which the clients of a drained node should come back."""

UNDER_WAY = 1.0
"""Seconds after which the steps of a node have begun, and have let go of the connections that they began with."""


class Node:
    """One coordinator process.

    `async with Node(settings) as node` serves; leaving the block ends at once, `drain()` first ends gently.
    `port`, `ops_port` and `admin_token` (of an embedded database's own folder, else None) are known inside it.
    With `dsn`, the database is one that is ready for use; else it is what the settings say, made ready first.

    Raises, on entering:
        ConfigError: a setting, folder or address does not do.
        UnknownSchema: the database's schema is not this program's.
        Unavailable: the database cannot be reached.
    """

    def __init__(self, settings: Settings, *, dsn: str | None = None, shared_port: bool = False) -> None:
        self.settings = settings
        self.port = 0
        self.ops_port: int | None = None
        self.admin_token: str | None = None
        self._dsn = dsn
        self._shared_port = shared_port
        self._home = contextlib.AsyncExitStack()
        self._database: Database | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = asyncio.Event()
        self._draining = False
        self.crashed = False
        """Its claims end as those of a node that is gone, at no client's cost."""
        self.failed = False
        """A part of the node has failed, or its lease was lost."""
        self.boot = Boot(0)
        self.events = Events()
        self._errands = Errands(self.events)

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def wait_until_stopped(self) -> None:
        """Until the node has drained, or had to give up."""
        await self._stopped.wait()

    def stop(self) -> None:
        """End at once; `wait_until_stopped` returns."""
        self._stopped.set()

    async def drain(self, reason: str = "the node drains") -> None:
        """Hand out no more, let the clients finish, close their sessions; then `wait_until_stopped` returns."""
        if self._draining:
            return
        self._draining = True
        self.events.emit("node", f"{self.settings.node_name} drains: {reason}")
        log.info("drain begins", reason=reason, sessions=len(self._listener.sessions))
        self._grant.stopped = True
        with contextlib.suppress(Unavailable):
            async with self._db.connection() as db:
                await nodes.set_state(db, self.boot, "draining")
        await self._listener.drain(self.settings.drain_grace, reason)
        await self._errands.finish()
        self._stopped.set()

    # Opening

    @property
    def _db(self) -> Database:
        assert self._database is not None
        return self._database

    async def _open(self) -> None:
        if self._dsn is None:
            prepared = await self._home.enter_async_context(prepared_database(self.settings))
            self._dsn, self.admin_token = prepared.dsn, prepared.admin_token
        self._database = Database(self._dsn)
        await self._database.open()
        await self._join(load_plugins())
        await self._listen()

    async def _join(self, plugins: dict[str, type[Plugin]]) -> None:
        settings = self.settings
        name = settings.node_name
        async with self._db.connection() as db:
            self.boot = await nodes.begin(db, name, __version__, settings.node_lease)
        self._catalogue = Catalogue(plugins)
        async with self._db.connection() as db:
            await self._catalogue.load(db)
        self._roster, tally = Roster(), Tally()
        self._signals = Signals(self._db, self.boot)
        maker, callouts = Maker(self._db), Callouts(self._db)
        self._activity = ActivityLog(self._db, name, settings.activity_retention, self.events)
        callouts.faulted = self._activity.fault
        self._grant = Grant(self._db, self._catalogue, self._roster, maker, tally, self.boot)
        self._load = Load(lambda: len(self._listener.sessions), lambda: tally.items, self._grant.demand)
        self._recorder = Recorder(self._db, tally, self.events, self.boot)
        self._commits = Commits(self._db, settings.recollect_window)
        intake = Intake(
            self._db, self._catalogue, self._roster, self._commits, self._grant, self._signals, tally, callouts
        )
        self._releases = Releases(
            self._db,
            self._catalogue,
            self._roster,
            self._grant,
            self._signals,
            self.boot,
            settings.reconnect_window,
            settings.recollect_window,
            self.events,
            tally,
        )
        self._grant.on_lost_track = self._releases.doubt
        self._signals.interrupted = self._releases.doubt
        memberships = Memberships(
            self._db,
            self._catalogue,
            self._roster,
            self._grant,
            self._releases,
            self._signals,
            self.boot,
            settings.registration,
            self.events,
        )
        self._watch_clients = Watch(self._db, self._catalogue, tally, self._signals, self._activity.who, self.events)
        self._expiry = Expiry(
            self._db,
            self._catalogue,
            self._roster,
            self._grant,
            maker,
            self._releases,
            self._signals,
            tally,
            self._watch_clients,
            self.boot,
            settings.recollect_window,
            settings.node_lease,
            self._lost_lease,
            self._activity,
            self.events,
            self._load.take,
        )
        self._hear()
        async with self._db.connection() as db:
            former = await nodes.former_boots(db, name, self.boot)
            if former:
                await activity.note_nodes(db, self._activity.who, former, "it started again")
            await self._expiry.free_crashed(db)
        operation = Operation(
            self._db,
            self._catalogue,
            self._grant,
            self._releases,
            self._signals,
            tally,
            name,
            memberships,
        )
        item_operation = ItemOperation(
            self._db, self._catalogue, self._grant, maker, self._releases, self._signals, callouts
        )
        self._service_life = ServiceLife(
            self._db, self._catalogue, self._grant, self._releases, self._signals, callouts
        )
        self._undo = Undo(self._db, self._catalogue, self._releases, self._signals, callouts)
        limits = Limits(
            max_message_bytes=settings.max_message_bytes,
            max_buckets_per_ask=10,
            max_held_buckets=20,
            messages_per_minute=settings.messages_per_minute,
            registrations_per_minute=settings.registrations_per_minute,
            connections_per_address=settings.connections_per_address,
            max_sessions=settings.max_sessions,
            hello_timeout=settings.hello_timeout,
            ping_interval=settings.ping_interval,
            ping_timeout=settings.ping_timeout,
        )
        board = Board(self._db, self._catalogue, self._grant, self.boot, Asking(self._db, name, lambda: tally.submits))
        self._tables = Tables(self._db, self._catalogue, board)
        self._feeds = Feeds(board.topics, lambda text: self.events.emit("fault", text))
        card = ServerCard(name="coordinator", version=__version__, node=name)
        self._listener = Listener(
            Steps(
                database=self._db,
                catalogue=self._catalogue,
                roster=self._roster,
                grant=self._grant,
                intake=intake,
                releases=self._releases,
                memberships=memberships,
                addresses=Addresses(
                    settings.connections_per_address,
                    settings.registrations_per_minute,
                    settings.trusted_proxies,
                ),
                limits=limits,
                card=card,
                spawn=self._errands.begin,
                alone=lambda: self._signals.alone,
                draining=lambda: self._draining,
                crashed=lambda: self.crashed or self.failed,
                drain_retry=DRAIN_RETRY,
                events=self.events,
            ),
            AdminSteps(
                database=self._db,
                operation=operation,
                item_operation=item_operation,
                service_life=self._service_life,
                undo=self._undo,
                limits=limits,
                card=card,
                hello_timeout=settings.hello_timeout,
                messages_per_minute=settings.messages_per_minute,
                spawn=self._errands.begin,
                health=self._health,
                events=self.events,
            ),
            StatsSteps(
                database=self._db,
                feeds=self._feeds,
                table=self._tables.page,
                viewers=settings.viewers,
                card=card,
                hello_timeout=settings.hello_timeout,
                messages_per_minute=settings.messages_per_minute,
                spawn=self._errands.begin,
                events=self.events,
                draining=lambda: self._draining,
                drain_retry=DRAIN_RETRY,
            ),
            allowed_origins=settings.allowed_origins,
            ready=self._reachable,
            metrics=Metrics(
                self._db,
                self._catalogue,
                self._roster,
                self._grant,
                tally,
                self.events,
                self._grant.waits,
                self._sessions,
                lambda: self._load.lag,
                __version__,
                name,
            ).page,
            pages={"/v1/asyncapi.json": Page("application/json", msgspec.json.encode(asyncapi())), **dashboard_pages()},
        )
        self._hearing = Hearing(
            self._db, self._catalogue, self._roster, self._grant, memberships, self._listener, self._errands
        )
        self._hearing.hear(self._signals)

    def _sessions(self) -> dict[str, int]:
        here = self._listener
        return {"client": len(here.sessions), "stats": len(here.viewers), "admin": len(here.admins)}

    def _hear(self) -> None:
        signals = self._signals
        signals.on("work", lambda one: self._grant.hear(ServiceId(one["service"]), waiting=one.get("waiting", False)))
        signals.on("lost", self._releases.on_lost)
        signals.on("dead", self._expiry.on_dead)
        signals.on("drain", self._on_drain)
        signals.on("node", lambda signal: None)  # hearing it is enough: this node is not alone any more

    async def _listen(self) -> None:
        settings = self.settings
        start = asyncio.get_running_loop().create_task
        self._tasks = [
            start(self._watch(step), name=name)
            for name, step in (
                ("grant", self._grant.run()),
                ("commits", self._commits.run()),
                ("signals", self._signals.run()),
                ("expiry", self._expiry.run()),
                ("releases", self._releases.run()),
                ("services", self._service_life.run()),
                ("undo", self._undo.run()),
                ("activity", self._activity.run()),
                ("load", self._load.run()),
                ("feeds", self._feeds.run()),
                ("recorder", self._recorder.run()),
                ("rehearsal", self._rehearse()),
                ("listener", self._listener.run()),
            )
        ]
        self._signals.tell("node")
        try:
            self.port, self.ops_port = await self._listener.open(
                settings.host,
                settings.port,
                tls=tls_of(settings.tls_cert, settings.tls_key),
                shared_port=self._shared_port,
                ops=(settings.ops_host, settings.ops_port),
            )
        except OSError as failure:
            raise ConfigError(
                f"host, port: cannot listen on {settings.host}:{settings.port} or "
                f"{settings.ops_host}:{settings.ops_port}: {failure.strerror or failure}"
            ) from failure
        self.events.emit("node", f"{settings.node_name} started, version {__version__}")
        log.info("serving", node=settings.node_name, host=settings.host, port=self.port, ops_port=self.ops_port)

    # While it runs

    async def _watch(self, step: Coroutine[Any, Any, None]) -> None:
        """A step of the node that ends by itself ends the node: half a node must not go on."""
        try:
            await step
        except asyncio.CancelledError:
            raise
        except BaseException:
            self.events.emit("fault", "a part of the node failed")
            log.exception("a part of the node failed")
            self.failed = True
            self._stopped.set()
            raise

    async def _rehearse(self) -> None:
        await asyncio.sleep(UNDER_WAY)
        with contextlib.suppress(Unavailable):
            await self._db.rehearse(rehearse)

    async def _reachable(self) -> bool:
        try:
            async with asyncio.timeout(2.0), self._db.connection() as db:
                await nodes.clock(db)
        except (Unavailable, TimeoutError):
            return False
        return True

    async def _health(self) -> dict[str, Any]:
        reachable = await self._reachable()
        version = None
        if reachable:
            async with self._db.connection() as db:
                version = str(db.get_server_version().major)
        return {
            "live": True,
            "ready": reachable and not self._draining,
            "draining": self._draining,
            "database": {"reachable": reachable, "version": version},
        }

    def _on_drain(self, signal: dict[str, Any]) -> None:
        if signal["node"] == self.settings.node_name:
            # Not among the errands: the drain waits for those.
            self._tasks.append(asyncio.get_running_loop().create_task(self.drain()))

    def _lost_lease(self) -> None:
        """Others will free what is held here: hand out no more, and end before they do."""
        if not self._draining:
            self._draining = True
            self._grant.stopped = True
            log.error("the lease cannot be renewed: closing all sessions")
            self.crashed = True
            for session in list(self._listener.sessions):
                session.end(Close.RESTART, "the node lost its lease")
            self.failed = True
            self._stopped.set()

    # Closing

    async def _close(self) -> None:
        if hasattr(self, "_listener"):
            await self._listener.close()
            await self._errands.finish()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._errands.cancel()
        if self._database is not None:
            with contextlib.suppress(Unavailable):
                await self._say_goodbye()
            await self._database.close()
        await self._home.aclose()

    async def _say_goodbye(self) -> None:
        if not self.boot:
            return
        await self._recorder.write()
        await self._activity.flush()
        async with self._db.connection() as db:
            await nodes.set_state(db, self.boot, "gone")
            await nodes.end_sessions(db)
