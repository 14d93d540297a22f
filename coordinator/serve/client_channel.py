"""The client channel: one session of one volunteer's daemon.  protocol.md, "Client channel"

Requests are answered in the order in which they come, but for submits of different buckets: those wait for their
commit side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import uuid4

import msgspec
import structlog

from coordinator.errors import (
    BadMessage,
    CoordinatorError,
    Draining,
    Internal,
    NotRegistered,
    NoWork,
    PeerError,
    RateLimited,
    ServerUnavailable,
    Unavailable,
    Unsupported,
)
from coordinator.flow.catalogue import Catalogue, membership_of, refuse_strangers
from coordinator.flow.grant import Grant
from coordinator.flow.intake import Intake
from coordinator.flow.membership import Memberships
from coordinator.flow.release import Releases
from coordinator.flow.session_registry import Identity, SessionRegistry
from coordinator.model import Claimed, ClientId, SessionId
from coordinator.observe import health
from coordinator.observe.events import Events
from coordinator.serve.connection import ChannelSession, Spawn, TimestampedConnection, ref_of
from coordinator.serve.limits import REFUSED_IN_A_ROW, Addresses
from coordinator.store import claims
from coordinator.store.pool import Database
from coordinator.wire import client as wire
from coordinator.wire.codec import Codec, Undecodable, tag_of
from coordinator.wire.frames import PROTOCOL, Answer, Close, Ref, Request, ServerCard
from coordinator.wire.session import NEEDS_REGISTRATION, Event, Life

log = structlog.get_logger()

CODEC: Codec[Request] = Codec(*wire.ANSWERS)

AWAY = 1.0
"""Seconds after which a client may try again while the database is away."""

MOST_SUBMITS = 32
"""Submits of one session that wait for their commit side by side; the next one waits to be read."""

NOTHING = 2.0
"""Seconds after which a client that does not wait may ask again."""


@dataclass(frozen=True, slots=True)
class ClientDependencies:
    """What the channels of a node work with."""

    database: Database
    catalogue: Catalogue
    registry: SessionRegistry
    grant: Grant
    intake: Intake
    releases: Releases
    memberships: Memberships
    addresses: Addresses
    limits: wire.Limits
    card: ServerCard
    spawn: Spawn
    alone: Callable[[], bool]
    draining: Callable[[], bool]
    crashed: Callable[[], bool]
    drain_retry: float
    events: Events


class ClientSession(ChannelSession):
    """One session; a `Holder` for the flow."""

    identity: Identity

    def __init__(self, connection: TimestampedConnection, address: str, steps: ClientDependencies) -> None:
        limits = steps.limits
        super().__init__(connection, address, limits.messages_per_minute, limits.hello_timeout, steps.spawn)
        self._steps = steps
        self._life = Life()
        self.session_id = SessionId(uuid4())
        self.client_id = ClientId("")
        self.draining = False
        self._submits: dict[str, asyncio.Task[None]] = {}
        self._registrations_refused = 0
        self._answers: dict[type[Request], Callable[[Any], Awaitable[Answer | None]]] = {
            wire.Hello: self._hello,
            wire.Register: self._register,
            wire.Unregister: self._unregister,
            wire.Services: self._services,
            wire.Join: self._join,
            wire.Leave: self._leave,
            wire.Activate: self._activate,
            wire.Ask: self._ask,
            wire.Release: self._release,
            wire.Recollect: self._recollect,
            wire.Report: self._report,
        }

    @property
    def welcomed(self) -> bool:
        return bool(self.client_id)

    @property
    def log_fields(self) -> dict[str, str]:
        return {"session": str(self.session_id), "client": self.client_id, "address": self.address}

    @property
    def busy(self) -> bool:
        """Whether it holds something, or has a submit under way."""
        return bool(self._submits) or any(held.holder is self for held in self.identity.held.values())

    async def run(self) -> None:
        """The whole life of the session."""
        try:
            await self.frames()
        finally:
            # Work under way belongs to the node: what was sent before the end is done before the release.
            self._steps.spawn(self._finish())

    async def _finish(self) -> None:
        self._life.move(Event.END)
        if not self.welcomed:
            return
        if self._submits:
            await asyncio.wait(self._submits.values())
        if self._steps.crashed():
            await self._steps.releases.end_session(self, keep=False, way=claims.CRASHED)
        else:
            await self._steps.releases.end_session(self, keep=self.draining)
        log.info("session ended", code=self.connection.close_code, **self.log_fields)

    def drain(self, reason: str) -> None:
        """Hand out no more; the client is told when to come back."""
        self._life.move(Event.DRAIN)
        self.draining = True
        if self.welcomed:
            self._steps.grant.withdraw(self)
            self.push(wire.Drain(retry_after=self._steps.drain_retry, reason=reason))

    # One frame

    async def take(self, frame: str) -> None:
        try:
            request = CODEC.decode(frame)
        except Undecodable as refusal:
            self.refuse(self._other_version(frame) or refusal.error, refusal.ref)
            return
        ref = ref_of(request)
        try:
            self._life.admit(type(request))
            if type(request) in NEEDS_REGISTRATION and not self.identity.registered:
                raise NotRegistered("Register first.", scope="client")
            if isinstance(request, wire.Submit):
                await self._begin_submit(request, ref)
                return
            await self._after_submits(request)
            answer = await self._answers[type(request)](request)
        except CoordinatorError as failure:
            error = in_words(failure, **self.log_fields)
            log.debug("refused", request=tag_of(type(request)), code=error.code, **self.log_fields)
            self.refuse(error, ref)
        except Exception:
            # The edge of the connection: a fault of ours is answered and logged, and nobody else notices.
            self._steps.events.emit("fault", "a request could not be answered", client=self.client_id or None)
            log.exception("step failed", request=tag_of(type(request)), **self.log_fields)
            self.refuse(Internal("Something went wrong here."), ref)
        else:
            if answer is not None:
                self.answer(answer, ref)

    def _other_version(self, frame: str) -> PeerError | None:
        """A `hello` of another version may have any shape; it is told so, not what is wrong with its fields."""
        if self.welcomed:
            return None
        try:
            generic = msgspec.json.decode(frame)
        except (msgspec.MsgspecError, RecursionError):
            return None
        if isinstance(generic, dict) and generic.get("type") == "hello" and isinstance(generic.get("protocol"), int):
            return _version(generic["protocol"])
        return None

    # Hello, and what a client says about itself

    async def _hello(self, hello: wire.Hello) -> None:
        wrong = _version(hello.protocol)
        if wrong is not None:
            raise wrong
        if self._steps.draining():
            raise Draining("This node drains.", retry_after=self._steps.drain_retry, close_code=Close.RESTART)
        steps = self._steps
        identity, counters = await steps.memberships.hello(hello, self.session_id, self.address)
        self.identity, self.client_id = identity, ClientId(hello.client_id)
        steps.registry.enter(self)
        self._life.move(Event.WELCOMED)
        self.connection.protocol.max_message_size = steps.limits.max_message_bytes
        welcome = wire.Welcome(
            session_id=str(self.session_id),
            server=steps.card,
            protocol=PROTOCOL,
            registered=identity.registered,
            services=[membership_of(entry, identity) for entry in steps.catalogue.all()],
            limits=steps.limits,
            stats=dict(counters),
        )
        regranted: list[Claimed] = []
        if hello.holds is not None:
            try:
                welcome.recollected, regranted = await steps.releases.recollect(self, hello.holds)
            except Unavailable:
                # Half welcome is not welcome; what may have been regranted is kept for the next try.
                raise ServerUnavailable(
                    "The database cannot be reached.", retry_after=AWAY, scope="server", close_code=Close.RESTART
                ) from None
        self.answer(welcome, ref_of(hello))
        for claimed in regranted:
            steps.grant.push(claimed, self)
        if steps.draining():
            self.drain("the node drains")
        back = f", buckets that it got back: {len(regranted)}" if regranted else ""
        steps.events.emit("connect", f"connected{back}", client=self.client_id)
        log.info("session began", agent=hello.agent, registered=identity.registered, **self.log_fields)

    async def _register(self, register: wire.Register) -> Answer:
        seconds = self._steps.addresses.register(self.address)
        if seconds:
            self._registrations_refused += 1
            close = Close.TOO_MANY if self._registrations_refused >= REFUSED_IN_A_ROW else None
            raise RateLimited(
                "Too many registrations from this address.",
                retry_after=round(seconds, 3),
                scope="connection",
                close_code=close,
            )
        self._registrations_refused = 0
        return await self._steps.memberships.register(register, self)

    async def _unregister(self, unregister: wire.Unregister) -> Answer:
        return await self._steps.memberships.unregister(unregister, self)

    async def _services(self, request: wire.Services) -> Answer:
        return self._steps.memberships.services(self)

    async def _join(self, join: wire.Join) -> Answer:
        return await self._steps.memberships.join(join, self)

    async def _leave(self, leave: wire.Leave) -> Answer:
        return await self._steps.memberships.leave(leave, self)

    async def _activate(self, activate: wire.Activate) -> Answer:
        return await self._steps.memberships.activate(activate, self)

    async def _report(self, report: wire.Report) -> Answer:
        return await self._steps.memberships.report(report, self)

    # Work

    async def _ask(self, ask: wire.Ask) -> Answer | None:
        steps = self._steps
        entry = steps.catalogue.get(ask.service)
        service, settings = entry.service.service_id, entry.service.settings
        refuse_strangers(entry, self.identity, idle_may=False)
        if self.draining:
            raise Draining("This node drains.", retry_after=steps.drain_retry, scope="server")
        limit, most_held = health.limits(self.identity.health_in(service), settings)
        if ask.count == 0:
            steps.grant.withdraw(self, service)
            return wire.Asked(service=ask.service, count=0, pending=0, limit=limit)
        room = most_held - await self._held(service) - steps.grant.pending_of_client(self, service)
        count = max(0, min(ask.count, limit, room))
        if count:
            steps.grant.note_ask(self, service, health.patience(settings.dead_after))
        if ask.wait:
            # The answer comes before the pushes: they can only follow once the line's task has run.
            steps.grant.ask(self, service, count)
            pending = steps.grant.pending(self, service)
            return wire.Asked(service=ask.service, count=count, pending=pending, limit=limit)
        found = await steps.grant.ask_now(self, service, count)
        if not found:
            raise NoWork("There is nothing at hand.", retry_after=NOTHING, scope="service")
        pending = steps.grant.pending(self, service)
        self.answer(wire.Asked(service=ask.service, count=len(found), pending=pending, limit=limit), ref_of(ask))
        for claimed in found:
            steps.grant.push(claimed, self)
        return None

    async def _held(self, service: Any) -> int:
        if self._steps.alone():
            return self.identity.held_in(service)
        async with self._steps.database.connection() as db:
            return await claims.held_count(db, self.client_id, service)

    async def _begin_submit(self, submit: wire.Submit, ref: Ref | None) -> None:
        if bytes(submit.results)[:1] != b"[":
            raise BadMessage("`results` is an array.", detail={"path": "$.results"})
        bucket = submit.bucket_id.lower()
        under_way = self._submits.get(bucket)
        if under_way is not None:
            await asyncio.wait([under_way])
        if len(self._submits) >= MOST_SUBMITS:
            await asyncio.wait(self._submits.values(), return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.get_running_loop().create_task(self._submit(submit, ref))
        self._submits[bucket] = task
        task.add_done_callback(lambda done: self._submit_done(bucket, done))

    def _submit_done(self, bucket: str, task: asyncio.Task[None]) -> None:
        if self._submits.get(bucket) is task:
            del self._submits[bucket]

    async def _submit(self, submit: wire.Submit, ref: Ref | None) -> None:
        begun = monotonic()
        try:
            stored = await self._steps.intake.submit(submit, self)
        except CoordinatorError as failure:
            error = in_words(failure, **self.log_fields)
            log.debug("refused", request="submit", code=error.code, bucket=submit.bucket_id, **self.log_fields)
            self.refuse(error, ref)
        except Exception:
            # As in `take`: the edge of the connection.
            self._steps.events.emit("fault", "a submit failed", client=self.client_id, bucket=submit.bucket_id[:36])
            log.exception("submit failed", bucket=submit.bucket_id, **self.log_fields)
            self.refuse(Internal("Something went wrong here."), ref)
        else:
            self.answer(stored, ref)
            log.debug("stored", bucket=submit.bucket_id, seconds=round(monotonic() - begun, 4), **self.log_fields)

    async def _after_submits(self, request: Request) -> None:
        """Whatever may touch buckets waits for the submits that came before it."""
        if self._submits and not isinstance(request, wire.Ask | wire.Services | wire.Report | wire.Join):
            await asyncio.wait(self._submits.values())

    async def _release(self, release: wire.Release) -> Answer:
        return await self._steps.releases.give_back(release, self)

    async def _recollect(self, recollect: wire.Recollect) -> None:
        if self.draining:
            raise Draining("This node drains.", retry_after=self._steps.drain_retry, scope="server")
        found, regranted = await self._steps.releases.recollect(self, recollect.holds or [])
        self.answer(wire.Recollected(regranted=found.regranted, dropped=found.dropped), ref_of(recollect))
        for claimed in regranted:
            self._steps.grant.push(claimed, self)


def in_words(failure: CoordinatorError, **log_fields: str) -> PeerError:
    """What a peer, which is logged by these log_fields, is told of a failure."""
    if isinstance(failure, PeerError):
        return failure
    if isinstance(failure, Unavailable):
        return ServerUnavailable(
            "The database cannot be reached; nothing is known to be stored.", retry_after=AWAY, scope="server"
        )
    log.error("step failed", error=str(failure), **log_fields)
    return Internal("Something went wrong here.")


def _version(protocol: int) -> PeerError | None:
    if protocol == PROTOCOL:
        return None
    return Unsupported(
        f"This server speaks version {PROTOCOL}, not {protocol}.",
        detail={"path": "$.protocol"},
        close_code=Close.VERSION,
    )
