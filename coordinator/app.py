"""A node: open, drain and close it."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

import structlog

from coordinator import __version__
from coordinator.address_file import address_file
from coordinator.assembly import Parts, assemble, listen_to_signals, make_core
from coordinator.config import RELOADED, Settings
from coordinator.errors import ConfigError, Unavailable
from coordinator.flow.signal_types import NodeDrains, NodeStarted
from coordinator.model import Boot
from coordinator.observe.events import Events
from coordinator.prepare import prepared_database
from coordinator.services import load_plugins
from coordinator.store import key_form, nodes
from coordinator.store.faults import handle_loop_failure
from coordinator.store.pool import Database
from coordinator.store.warmup import warm_up

log = structlog.get_logger()

CLOSE_WITHIN = 3.0
"""Seconds for what a node that ends still wants of the database; then its connections are cut."""

WARM_UP_AFTER = 1.0
"""Seconds after the start; by then the parts have released the connections that they needed to begin."""


class Node:
    """One coordinator process.

    `async with Node(settings) as node` serves; leaving the block ends at once, unless `drain()` was called before.
    Inside it, `port`, `ops_port` and `admin_token` are known (`admin_token`: None unless the database is embedded).
    A database given by `dsn` must be ready for use; else the database of the settings is prepared first.

    Raises, on entering:
        ConfigError: a setting, folder or address cannot be used.
        UnknownSchema: the database's schema is not one that this program knows.
        Unavailable: the database cannot be reached.
    """

    def __init__(self, settings: Settings, *, dsn: str | None = None, shared_port: bool = False) -> None:
        self.settings = settings
        self.port = 0
        self.ops_port: int | None = None
        self.admin_token: str | None = None
        self.events = Events()
        self._dsn = dsn
        self._shared_port = shared_port
        self._home = contextlib.AsyncExitStack()
        self._database: Database | None = None
        self._boot: Boot | None = None
        self._parts: Parts | None = None
        self.tasks: list[asyncio.Task[None]] = []
        """The tasks that run as long as the node does, each with its name."""

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

    @property
    def parts(self) -> Parts:
        """The parts of the node; only once it is open."""
        assert self._parts is not None
        return self._parts

    @property
    def boot(self) -> Boot:
        """The number of this start of the node."""
        return self.parts.core.boot

    @property
    def failed(self) -> bool:
        """Whether a part of the node has failed, or its lease was lost."""
        return self._parts is not None and self._parts.core.state.failed

    async def wait_until_stopped(self) -> None:
        """Wait until the node has drained, has failed or was stopped."""
        await self.parts.core.state.stopped.wait()

    def stop(self) -> None:
        """End at once; `wait_until_stopped` returns."""
        self.parts.core.state.stopped.set()

    def crash(self) -> None:
        """Let the claims of this node end as those of a crashed node: no client is charged."""
        self.parts.core.state.crashed = True

    def reload(self) -> None:
        """Take over what has changed in the sources of the settings, and look at the certificate; nobody is cut off.

        Sources that cannot be read, or are wrong, change nothing; the log tells what has become of it.
        """
        parts = self.parts
        if parts.sockets.certificate is not None:
            parts.sockets.certificate.look()

        try:
            settings, for_a_restart = self.settings.reread()
        except ConfigError as failure:
            log.warning("the settings stay as they are", reason=str(failure))
            return

        former = parts.core.state.settings
        changed = [name for name in RELOADED if getattr(settings, name) != getattr(former, name)]
        parts.core.state.settings = settings
        parts.sockets.listener.use(settings)
        log.info("reloaded", changed=changed, only_after_a_restart=for_a_restart)

    async def drain(self, reason: str = "the node drains") -> None:
        """Hand out no more buckets, let the clients finish, close their sessions; then `wait_until_stopped` returns."""
        parts = self.parts
        state = parts.core.state
        if state.draining:
            return
        state.draining = True
        self.events.emit("node", f"{self.settings.node_name} drains: {reason}")
        log.info("drain begins", reason=reason, sessions=len(parts.sessions.clients))

        parts.background.begin(self._tell_of_the_drain(parts))
        await parts.sockets.listener.drain(state.settings.drain_grace, reason)
        state.stopped.set()

    async def _tell_of_the_drain(self, parts: Parts) -> None:
        with contextlib.suppress(Unavailable):
            async with parts.core.database.connection() as db:
                await nodes.set_draining(db, parts.core.boot)

    # Opening

    async def _open(self) -> None:
        asyncio.get_running_loop().set_exception_handler(handle_loop_failure)
        if self._dsn is None:
            prepared = await self._home.enter_async_context(prepared_database(self.settings))
            self._dsn, self.admin_token = prepared.dsn, prepared.admin_token
        self._database = Database(self._dsn)
        await self._database.open()

        parts = self._parts = await self._assemble(self._database)
        listen_to_signals(parts)
        parts.core.signals.on(NodeDrains, self._on_drain)
        await parts.work.lease.take_over_from_former_boots()

        start = asyncio.get_running_loop().create_task
        self.tasks = [start(parts.supervisor.keep_running(name, run), name=name) for name, run in parts.runs()]
        self.tasks += [start(parts.supervisor.run_vital(name, run), name=name) for name, run in parts.vital_runs()]
        self.tasks.append(start(self._warm_up(parts.core.database), name="warmup"))
        self.tasks.append(start(self._give_up_with_the_lease(parts), name="lost lease"))
        parts.core.signals.tell(NodeStarted())
        await self._listen(parts)

    async def _assemble(self, database: Database) -> Parts:
        plugins = load_plugins()
        settings = self.settings
        async with database.connection() as db:
            self._boot = await nodes.begin(db, settings.node_name, __version__, settings.node_lease)
            form = await key_form.read(db)
        await database.belong_to(self._boot)

        core = make_core(settings, database, self._boot, form, plugins, self.events)
        async with database.connection() as db:
            await core.catalogue.load(db)
        return assemble(core)

    async def _listen(self, parts: Parts) -> None:
        settings = self.settings
        certificate = parts.sockets.certificate

        try:
            self.port, self.ops_port = await parts.sockets.listener.open(
                settings.host,
                settings.port,
                tls=None if certificate is None else certificate.context,
                shared_port=self._shared_port,
                ops=(settings.ops_host, settings.ops_port),
            )
        except OSError as failure:
            raise ConfigError(
                f"host, port: cannot listen on {settings.host}:{settings.port} or "
                f"{settings.ops_host}:{settings.ops_port}: {failure.strerror or failure}"
            ) from failure

        if not self._shared_port:  # else it is the supervisor's to tell
            self._home.enter_context(address_file(settings, self.port))

        self.events.emit("node", f"{settings.node_name} started, version {__version__}")
        log.info("serving", node=settings.node_name, host=settings.host, port=self.port, ops_port=self.ops_port)

    # While it runs

    async def _warm_up(self, database: Database) -> None:
        await asyncio.sleep(WARM_UP_AFTER)
        with contextlib.suppress(Unavailable):
            await database.warm_up(warm_up)

    async def _give_up_with_the_lease(self, parts: Parts) -> None:
        """Wait for the loss of the lease; then end the node before others free its buckets."""
        state = parts.core.state
        await state.lease_lost.wait()
        if state.draining:
            return

        state.draining = state.crashed = True
        log.error("the lease cannot be renewed: closing all sessions")
        try:
            parts.sockets.listener.cut_off_clients("the node lost its lease")
        finally:
            state.failed = True
            state.stopped.set()

    def _on_drain(self, drains: NodeDrains) -> None:
        if drains.node == self.settings.node_name:
            # Not among the background tasks: the drain waits for those.
            self.tasks.append(asyncio.get_running_loop().create_task(self.drain()))

    # Closing

    async def _close(self) -> None:
        """End all parts; what the database does not answer in time is given up."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CLOSE_WITHIN
        timer = loop.call_at(until, self._cut_off_database)
        try:
            await self._end_parts(until)
        finally:
            timer.cancel()
        await self._home.aclose()

    def _cut_off_database(self) -> None:
        log.warning("the database does not answer: its connections are cut, for the node ends")
        if self._database is not None:
            self._database.terminate()

    async def _end_parts(self, until: float) -> None:
        loop, parts = asyncio.get_running_loop(), self._parts
        if parts is not None:
            await parts.sockets.listener.close()
            # What cannot be stored is tried again and again: without the database there is nothing to wait for.
            await parts.background.finish(max(0.0, until - loop.time()))

        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

        if parts is not None:
            parts.background.cancel()
            await parts.work.plugin_runner.close()
        if self._database is not None:
            with contextlib.suppress(Unavailable):
                await self._say_goodbye(self._database)
            await self._database.close()

    async def _say_goodbye(self, database: Database) -> None:
        """Write what was not written yet, and tell the others that this node is gone."""
        if self._parts is not None:
            await self._parts.statistics.recorder.write()
            await self._parts.work.activity_log.flush()
        if self._boot is not None:
            async with database.connection() as db:
                await nodes.end(db, self._boot, "it ended in the regular way")
                await nodes.end_sessions(db)
